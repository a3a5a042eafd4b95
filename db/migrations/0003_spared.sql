-- A trial may be spared: not sent, because the question was answered before its turn came.
-- SQLite cannot change a CHECK, so the table is made again under its own name, with the same rows.

-- Exchanges refer to trials. Until the rows are back, these references point at nothing.
PRAGMA defer_foreign_keys = ON;

CREATE TEMP TABLE trials_before AS SELECT * FROM trials ORDER BY rowid;

DROP TABLE trials;

-- One trace sent over one route once. Planned before anything is sent, so that what is missing can be counted.
CREATE TABLE trials (
  id       TEXT PRIMARY KEY NOT NULL,  -- UUIDv7
  run_id   TEXT NOT NULL REFERENCES runs (id),  -- the run that planned it
  trace_id TEXT NOT NULL REFERENCES traces (id),  -- what is sent
  route_id TEXT NOT NULL REFERENCES routes (id),  -- where to
  repeat   INTEGER NOT NULL,  -- repeat number, from 1; a twin has one more, to be compared with itself (A/A)
  position INTEGER NOT NULL,  -- place in the order of sending, from 0
  state    TEXT NOT NULL CHECK (state IN ('planned', 'answered', 'failed', 'spared')),
    -- `answered` if and only if one of its exchanges is marked as its answer; `failed`: given up;
    -- `spared`: not sent, because the run was told to stop when its question is answered, and it was
  dropped  TEXT NOT NULL,
    -- JSON array: names of parameters that the backend cannot accept and that were therefore not sent
  UNIQUE (run_id, trace_id, route_id, repeat)
) STRICT;

INSERT INTO trials (id, run_id, trace_id, route_id, repeat, position, state, dropped)
SELECT id, run_id, trace_id, route_id, repeat, position, state, dropped FROM trials_before ORDER BY rowid;

DROP TABLE trials_before;

CREATE INDEX trials_by_state ON trials (run_id, state, position);
CREATE INDEX trials_by_trace ON trials (trace_id);
CREATE INDEX trials_by_route ON trials (route_id);
