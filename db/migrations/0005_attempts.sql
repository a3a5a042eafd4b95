-- What a run has spent, and why a trial has no answer.
-- A hosted request costs money whether or not its answer arrives, so it is noted before it leaves. The table of trials
-- is made again under its own name, with the same rows and one more column.

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
  reason   TEXT NOT NULL DEFAULT '',
    -- why there is no answer so far, in one word; empty where nothing was tried, where there is one, or nobody said.
    -- Of a planned trial for example `rate_limited`, `daily_limit`, `budget`; of a failed one `timeout`, `key_refused`
  UNIQUE (run_id, trace_id, route_id, repeat)
) STRICT;

INSERT INTO trials (id, run_id, trace_id, route_id, repeat, position, state, dropped)
SELECT id, run_id, trace_id, route_id, repeat, position, state, dropped FROM trials_before ORDER BY rowid;

DROP TABLE trials_before;

CREATE INDEX trials_by_state ON trials (run_id, state, position);
CREATE INDEX trials_by_trace ON trials (trace_id);
-- A runner reads the open trials of a route page by page, in their order.
CREATE INDEX trials_by_route ON trials (route_id, run_id, state, position);

-- One request to a hosted route, committed before it leaves: what it may cost at most, and later what it did cost.
-- A journal: a run that was killed counts what was under way as spent, because it may have been billed. Money is in
-- nano-dollars (1e-9 US dollars) as whole numbers, rounded up, so that sums are exact.
CREATE TABLE attempts (
  id                  TEXT PRIMARY KEY NOT NULL,  -- UUIDv7
  trial_id            TEXT NOT NULL REFERENCES trials (id),  -- the trial that is tried
  route_id            TEXT NOT NULL REFERENCES routes (id),  -- the route it goes over
  attempt             INTEGER NOT NULL,  -- number of the attempt at the trial
  begun_at            REAL NOT NULL,  -- when it was noted, just before the request left
  reserved_prompt     INTEGER NOT NULL CHECK (reserved_prompt >= 0),  -- prompt tokens that it may cost at most
  reserved_completion INTEGER NOT NULL CHECK (reserved_completion >= 0),  -- completion tokens that it may cost at most
  reserved_nanousd    INTEGER CHECK (reserved_nanousd >= 0),
    -- nano-dollars that it may cost at most; empty where no price is known
  ended               INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1)),
    -- 0: under way, or the run was killed before its end: it counts with what was reserved
  exchange_id         TEXT UNIQUE REFERENCES exchanges (id),  -- what crossed the wire; empty where nothing was recorded
  prompt_tokens       INTEGER CHECK (prompt_tokens >= 0),  -- prompt tokens that it cost
  completion_tokens   INTEGER CHECK (completion_tokens >= 0),  -- completion tokens that it cost
  nanousd             INTEGER CHECK (nanousd >= 0),  -- nano-dollars that it cost; empty where no price is known
  source              TEXT CHECK (source IN ('reported', 'counted', 'reserved', 'unsent')),
    -- where the cost comes from: `reported` by the route in money; `counted` from its tokens and the price; `reserved`:
    -- nobody knows, so that all that was reserved counts; `unsent`: the request did not leave and counts nowhere
  CHECK (
    CASE ended
      WHEN 1 THEN prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL AND source IS NOT NULL
      ELSE prompt_tokens IS NULL AND completion_tokens IS NULL AND nanousd IS NULL AND source IS NULL
        AND exchange_id IS NULL
    END
  )
) STRICT;

CREATE INDEX attempts_by_trial ON attempts (trial_id);
CREATE INDEX attempts_by_route ON attempts (route_id, begun_at);

CREATE TRIGGER attempts_end_once BEFORE UPDATE ON attempts WHEN OLD.ended = 1
BEGIN
  SELECT RAISE (ABORT, 'an attempt that has ended is never changed');
END;

CREATE TRIGGER attempts_never_go BEFORE DELETE ON attempts
BEGIN
  SELECT RAISE (ABORT, 'an attempt is never deleted');
END;

-- What a route was asked on one day is counted by route and time.
DROP INDEX exchanges_by_route;
CREATE INDEX exchanges_by_route ON exchanges (route_id, started_at);
