-- What is derived from the exchanges. All of it can be dropped and made again, and names the code that made it.

-- What the user got, according to one judge.
-- Several judges may label one exchange: their disagreement is part of the result.
CREATE TABLE outcomes (
  exchange_id   TEXT NOT NULL REFERENCES exchanges (id),  -- the exchange that was judged
  judge         TEXT NOT NULL,  -- name of the judge
  judge_version TEXT NOT NULL,  -- its version
  outcome       TEXT NOT NULL CHECK (outcome IN (
                  'complied', 'partial', 'refused', 'blocked', 'cut', 'empty', 'error', 'ungradable')),
    -- `complied`, `partial`, `refused`, `blocked`, `cut`, `empty`, `error` or `ungradable`
  confidence    REAL NOT NULL,  -- the judge's own, 0 to 1
  reason        TEXT NOT NULL,  -- one sentence
  detail        TEXT NOT NULL,  -- JSON object: what the judge looked at
  text_hash     TEXT,  -- content hash of the text that was judged; empty where there was none
  excerpt       TEXT NOT NULL,  -- how that text begins, for people
  PRIMARY KEY (exchange_id, judge)
) STRICT;

CREATE INDEX outcomes_by_text ON outcomes (text_hash);

-- Scores of texts under local weights.
-- A cache: the dearest derived thing, so it outlives the tables that are made from it.
CREATE TABLE likelihoods (
  key        TEXT PRIMARY KEY NOT NULL,  -- content hash of scorer, version, weights, prompt ids and continuation ids
  scorer     TEXT NOT NULL,  -- name of the scorer
  version    TEXT NOT NULL,  -- its version
  weights    TEXT NOT NULL,  -- the weights that scored
  vocabulary INTEGER NOT NULL,  -- tokens that the weights know
  tokens     INTEGER NOT NULL,  -- length of the continuation
  data       BLOB NOT NULL  -- token scores, packed and compressed (`probe/store/scores.py` says how)
) STRICT;

-- One detector's finding about one exchange. Evidence is not a verdict, so it is kept apart from it.
CREATE TABLE evidence (
  exchange_id TEXT NOT NULL REFERENCES exchanges (id),  -- the exchange
  detector    TEXT NOT NULL,  -- name of the detector
  version     TEXT NOT NULL,  -- its version
  log_e       REAL,  -- natural log of an e-value against "these weights wrote this"; empty where it abstains
  llr         REAL NOT NULL,  -- natural-log likelihood ratio platform : model; 0 where it abstains
  sentence    TEXT NOT NULL,  -- the finding in plain English
  facts       TEXT NOT NULL,  -- JSON object: the numbers behind it
  exhibit     TEXT NOT NULL,  -- the bytes it rests on
  decisive    INTEGER NOT NULL CHECK (decisive IN (0, 1)),  -- 1: a declared signature, which decides alone
  mechanism   TEXT,  -- what was done, where the finding names it
  layer       TEXT,  -- where it was done, where the finding names it
  PRIMARY KEY (exchange_id, detector)
) STRICT;

-- Who is behind an exchange: the model, the platform, or nobody can tell.
CREATE TABLE verdicts (
  exchange_id  TEXT PRIMARY KEY NOT NULL REFERENCES exchanges (id),  -- the exchange
  who          TEXT NOT NULL CHECK (who IN ('model', 'platform', 'undecided')),  -- `model`, `platform` or `undecided`
  probability  REAL NOT NULL,  -- posterior probability of `platform`, 0 to 1
  log_e        REAL NOT NULL,  -- natural log of the combined e-value
  mechanism    TEXT,  -- what was done, where the evidence names it
  layer        TEXT,  -- where it was done, where the bytes show it
  reason       TEXT NOT NULL,  -- one sentence
  code_version TEXT NOT NULL  -- version of the probe
) STRICT;

CREATE INDEX verdicts_by_who ON verdicts (who);

-- Whether a hosted route serves the weights of its twin: asked before any blame.
CREATE TABLE gates (
  id           TEXT PRIMARY KEY NOT NULL,  -- content hash of the two routes
  route_id     TEXT NOT NULL REFERENCES routes (id),  -- the hosted route
  twin_id      TEXT NOT NULL REFERENCES routes (id),  -- its twin
  answer       TEXT NOT NULL,  -- same, different, or cannot tell
  sentence     TEXT NOT NULL,  -- the answer in plain English
  detail       TEXT NOT NULL,  -- JSON object: the tests and their numbers
  code_version TEXT NOT NULL  -- version of the probe
) STRICT;

-- A difference between a hosted route and its twin, with intervals. Rates and differences are fractions, not percent.
CREATE TABLE effects (
  id              TEXT PRIMARY KEY NOT NULL,  -- content hash of the two routes and the scope
  route_id        TEXT NOT NULL REFERENCES routes (id),  -- the hosted route
  twin_id         TEXT NOT NULL REFERENCES routes (id),  -- its twin
  scope           TEXT NOT NULL,  -- `all`, or a part such as `family:direct`
  n               INTEGER NOT NULL,  -- traces compared
  missing         INTEGER NOT NULL,  -- traces without a gradable answer on either side
  undecided       INTEGER NOT NULL,  -- hosted non-compliances that nobody is blamed for
  hosted_rate     REAL,  -- refusals of the hosted route
  hosted_low      REAL,  -- lower end of its interval
  hosted_high     REAL,  -- upper end
  twin_rate       REAL,  -- refusals of the twin
  twin_low        REAL,  -- lower end of its interval
  twin_high       REAL,  -- upper end
  difference      REAL,  -- hosted less twin
  difference_low  REAL,  -- lower end of its interval
  difference_high REAL,  -- upper end
  platform        REAL,  -- platform effect: refusals that the twin would not have given
  platform_low    REAL,  -- lower end of its interval
  platform_high   REAL,  -- upper end
  serving         REAL,  -- serving difference: what the model itself did differently
  serving_low     REAL,  -- lower end of its interval
  serving_high    REAL,  -- upper end
  p_value         REAL,  -- of the paired test of no difference
  q_value         REAL,  -- the same after correction for the number of comparisons
  sentence        TEXT NOT NULL,  -- the conclusion in plain English
  detail          TEXT NOT NULL,  -- JSON object: everything else
  code_version    TEXT NOT NULL  -- version of the probe
) STRICT;
