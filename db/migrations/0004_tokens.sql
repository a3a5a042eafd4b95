-- Token ids of conversations and texts, as a twin's server makes them.
-- A cache like `likelihoods`: whoever analyses a study again need not ask the server for what it said before. The key
-- holds a fingerprint of the server's template and tokenizer, so that another one never finds these rows.
CREATE TABLE tokens (
  key BLOB PRIMARY KEY NOT NULL,  -- first half of the content hash of scorer, version, weights, fingerprint and text
  ids BLOB NOT NULL  -- token ids: u32, little-endian
) WITHOUT ROWID, STRICT;
