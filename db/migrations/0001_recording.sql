-- What is recorded: the plan of a study and the bytes that crossed the wire. Nothing here can be made again.
-- Ids are UUIDv7 (RFC 9562) or content hashes (SHA-256, lower-case hexadecimal), so that files merge without collisions.
-- Times are Unix seconds (UTC) unless a column says otherwise. Columns that hold JSON say so.

-- One set of model parameters.
-- A table of its own, because several routes claim to serve the same weights, and that claim is what a study tests.
CREATE TABLE weights (
  id           TEXT PRIMARY KEY NOT NULL,  -- content hash of the other columns
  name         TEXT NOT NULL,  -- id on the model hub, or the name that the study gives
  revision     TEXT NOT NULL,  -- commit of the hub's repository; empty where nobody said
  quantization TEXT NOT NULL,  -- for example `bf16`, `Q4_K_M`; empty where nobody said
  file_sha256  TEXT            -- SHA-256 of the file, where we hold it
) STRICT;

-- A named way to reach weights: backend, endpoint, model id and request options.
-- The id is the hash of the definition, so an edited route is a new route and its answers never mix with the old ones.
CREATE TABLE routes (
  id         TEXT PRIMARY KEY NOT NULL,  -- content hash of the other columns
  name       TEXT NOT NULL,  -- name in `probe.toml`
  backend    TEXT NOT NULL,  -- kind of server or provider: a file in `backends/`
  dialect    TEXT NOT NULL,  -- wire format, for example `openai-chat`
  url        TEXT NOT NULL,  -- endpoint, without credentials
  model      TEXT NOT NULL,  -- model id as it is sent
  weights_id TEXT NOT NULL REFERENCES weights (id),  -- the weights that the route is said to serve
  role       TEXT NOT NULL CHECK (role IN ('local', 'hosted')),  -- `local` or `hosted`
  twin       TEXT,  -- name of the local route that a hosted one is compared with
  request    TEXT NOT NULL  -- JSON object: options added to every request
) STRICT;

CREATE INDEX routes_by_name ON routes (name);

-- What a server said of itself, at a time: version, template hash, model listing, held file.
-- Apart from the route, because a server changes under an unchanged definition, and that is worth seeing.
CREATE TABLE route_facts (
  id       TEXT PRIMARY KEY NOT NULL,  -- UUIDv7
  route_id TEXT NOT NULL REFERENCES routes (id),  -- the route that was asked
  at       REAL NOT NULL,  -- when it was asked
  kind     TEXT NOT NULL,  -- for example `version`, `template`, `models`
  value    TEXT NOT NULL  -- JSON: the answer
) STRICT;

CREATE INDEX route_facts_by_route ON route_facts (route_id, kind, at);

-- A file of traces with its card.
CREATE TABLE packs (
  id      TEXT PRIMARY KEY NOT NULL,  -- content hash of the pack
  name    TEXT NOT NULL,  -- name of the pack
  source  TEXT NOT NULL,  -- name of the file it was read from
  licence TEXT NOT NULL,  -- SPDX expression, or the words of the card
  card    TEXT NOT NULL  -- JSON object: families, origin, caveats
) STRICT;

-- One conversation with its sampling parameters, the same bytes for every route.
-- The id covers only what is sent; name, family, control and labels describe it and can be corrected by a later pack.
CREATE TABLE traces (
  id       TEXT PRIMARY KEY NOT NULL,  -- content hash of messages and sampling
  name     TEXT NOT NULL,  -- name in the pack
  family   TEXT NOT NULL,  -- attack family; may be empty
  control  INTEGER NOT NULL CHECK (control IN (0, 1)),  -- 1: benign, used to learn what a route normally looks like
  messages TEXT NOT NULL,  -- JSON array of {role, content}
  sampling TEXT NOT NULL,  -- JSON object: every sampling parameter
  labels   TEXT NOT NULL  -- JSON object: whatever the pack says
) STRICT;

-- Which traces a pack holds, in its order.
-- A table of its own, because two packs may hold one trace.
CREATE TABLE pack_traces (
  pack_id  TEXT NOT NULL REFERENCES packs (id),  -- the pack
  trace_id TEXT NOT NULL REFERENCES traces (id),  -- the trace
  position INTEGER NOT NULL,  -- line in the pack, from 0
  PRIMARY KEY (pack_id, trace_id)
) STRICT;

CREATE INDEX pack_traces_by_trace ON pack_traces (trace_id);

-- One execution of a plan.
-- The manifest is kept whole, so that another lab can repeat the run from this file alone.
CREATE TABLE runs (
  id         TEXT PRIMARY KEY NOT NULL,  -- UUIDv7
  started_at REAL NOT NULL,  -- when it was planned
  ended_at   REAL,  -- when it came to its end; empty while it runs and after it was killed
  seed       INTEGER NOT NULL,  -- seed of the order of trials
  manifest   TEXT NOT NULL  -- JSON object: code version, routes, packs, options
) STRICT;

-- One trace sent over one route once. Planned before anything is sent, so that what is missing can be counted.
CREATE TABLE trials (
  id       TEXT PRIMARY KEY NOT NULL,  -- UUIDv7
  run_id   TEXT NOT NULL REFERENCES runs (id),  -- the run that planned it
  trace_id TEXT NOT NULL REFERENCES traces (id),  -- what is sent
  route_id TEXT NOT NULL REFERENCES routes (id),  -- where to
  repeat   INTEGER NOT NULL,  -- repeat number, from 0
  position INTEGER NOT NULL,  -- place in the order of sending, from 0
  state    TEXT NOT NULL CHECK (state IN ('planned', 'answered', 'failed')),
    -- `answered` if and only if one of its exchanges is marked as its answer; `failed`: given up
  dropped  TEXT NOT NULL,
    -- JSON array: names of parameters that the backend cannot accept and that were therefore not sent
  UNIQUE (run_id, trace_id, route_id, repeat)
) STRICT;

CREATE INDEX trials_by_state ON trials (run_id, state, position);
CREATE INDEX trials_by_trace ON trials (trace_id);
CREATE INDEX trials_by_route ON trials (route_id);

-- Message bodies, compressed, once per content.
-- Every route gets the same request and a canned refusal comes back many times, so most bodies are repeats.
CREATE TABLE blobs (
  hash  TEXT PRIMARY KEY NOT NULL,  -- SHA-256 of the raw bytes
  codec TEXT NOT NULL CHECK (codec IN ('raw', 'zstd')),  -- how `data` is encoded: `raw` where zstd saves nothing
  size  INTEGER NOT NULL,  -- length of the raw bytes
  data  BLOB NOT NULL  -- the bytes
) STRICT;

CREATE TRIGGER blobs_never_change BEFORE UPDATE ON blobs
BEGIN
  SELECT RAISE (ABORT, 'a body is never changed after it was written');
END;

-- One raw HTTP request/response pair as it crossed the proxy. The evidence of the study: never changed, never deleted.
-- Header fields are pairs in wire order; times after `started_at` are seconds on a monotonic clock, kept to the microsecond.
CREATE TABLE exchanges (
  id               TEXT PRIMARY KEY NOT NULL,  -- UUIDv7
  trial_id         TEXT REFERENCES trials (id),  -- the trial it belongs to; empty for traffic outside any plan
  route_id         TEXT NOT NULL REFERENCES routes (id),  -- the route it went over
  attempt          INTEGER NOT NULL,  -- number of the attempt at the trial
  answered         INTEGER NOT NULL CHECK (answered IN (0, 1)),
    -- 1: this is the trial's answer; at most one per trial, attempts that failed are exchanges too
  started_at       REAL NOT NULL,  -- when it began
  method           TEXT NOT NULL,  -- request method
  url              TEXT NOT NULL,  -- request URL, without credentials
  request_headers  TEXT NOT NULL,  -- JSON array of [name, value]
  request_body     TEXT NOT NULL REFERENCES blobs (hash),  -- body after transfer-coding, before content-coding
  http_version     TEXT,  -- of the response
  status           INTEGER,  -- status code; empty where no response came
  reason           TEXT,  -- reason phrase
  response_headers TEXT NOT NULL,  -- JSON array of [name, value]
  response_body    TEXT NOT NULL REFERENCES blobs (hash),  -- body after transfer-coding, before content-coding
  chunks           TEXT NOT NULL,
    -- JSON array of [bytes, microseconds after `started_at`], one per arrival of body bytes
  sent_at          REAL,  -- seconds until the request was out
  head_at          REAL,  -- seconds until the response's head was in
  ended_at         REAL,  -- seconds until the exchange was over
  state            TEXT NOT NULL CHECK (state IN ('complete', 'cut', 'timeout', 'unreachable', 'client_gone')),
    -- how it ended on the wire
  error            TEXT,  -- what went wrong, in words
  redactions       INTEGER NOT NULL,  -- places where a credential was blotted out before storing
  checksum         TEXT NOT NULL  -- content hash of all other columns, so that a later change shows
) STRICT;

CREATE UNIQUE INDEX exchanges_one_answer ON exchanges (trial_id) WHERE answered = 1;
CREATE INDEX exchanges_by_trial ON exchanges (trial_id);
CREATE INDEX exchanges_by_route ON exchanges (route_id);
CREATE INDEX exchanges_by_request ON exchanges (request_body);
CREATE INDEX exchanges_by_response ON exchanges (response_body);

CREATE TRIGGER exchanges_never_change BEFORE UPDATE ON exchanges
BEGIN
  SELECT RAISE (ABORT, 'an exchange is never changed after it was written');
END;

CREATE TRIGGER exchanges_never_go BEFORE DELETE ON exchanges
BEGIN
  SELECT RAISE (ABORT, 'an exchange is never deleted');
END;
