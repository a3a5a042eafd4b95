-- Who really served each answer of a route that may be served by several: a router names the host beside the answer.
-- An answer of another host than the pinned one is no answer of the route that the study means, so it is marked.

-- Derived like outcomes and evidence, from the exchange and the listing that was read before the run.
CREATE TABLE served (
  exchange_id TEXT PRIMARY KEY NOT NULL REFERENCES exchanges (id),  -- the exchange
  provider    TEXT,  -- the host that served, as the router names it; empty where it does not
  model       TEXT,  -- the model that answered, as the answer names it
  expected    TEXT,  -- the host that the route pins, as its request names it; empty where it pins none
  surprise    INTEGER NOT NULL CHECK (surprise IN (0, 1)),
    -- 1: another host or model than the pinned one; 0 also where that cannot be told
  sentence    TEXT NOT NULL  -- the same in plain English
) STRICT;

CREATE INDEX served_by_surprise ON served (surprise);
