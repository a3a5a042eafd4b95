-- The slowest exchanges: seconds to the first byte of the body and to the end, bytes and chunks.
SELECT
  exchanges.id,
  routes.name AS route,
  traces.name AS trace,
  exchanges.attempt,
  exchanges.status,
  exchanges.state,
  round(json_extract(exchanges.chunks, '$[0][1]') / 1e6, 3) AS first_byte,
  round(exchanges.ended_at, 3) AS ended,
  blobs.size AS bytes,
  json_array_length(exchanges.chunks) AS chunks
FROM exchanges
JOIN routes ON routes.id = exchanges.route_id
JOIN blobs ON blobs.hash = exchanges.response_body
LEFT JOIN trials ON trials.id = exchanges.trial_id
LEFT JOIN traces ON traces.id = trials.trace_id
ORDER BY exchanges.ended_at DESC
LIMIT 50;
