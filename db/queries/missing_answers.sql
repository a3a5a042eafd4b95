-- What is missing: trials without an answer, by route, with what their attempts ran into.
SELECT
  routes.name AS route,
  trials.state,
  count(DISTINCT trials.id) AS trials,
  count(exchanges.id) AS attempts,
  exchanges.status,
  exchanges.state AS wire,
  min(exchanges.error) AS for_example
FROM trials
JOIN routes ON routes.id = trials.route_id
LEFT JOIN exchanges ON exchanges.trial_id = trials.id
WHERE trials.state <> 'answered'
GROUP BY routes.id, trials.state, exchanges.status, exchanges.state
ORDER BY routes.name, trials DESC;
