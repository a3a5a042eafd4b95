-- Texts that one route gave to several different traces: a canned answer is one, and so is a model's favourite phrase.
SELECT
  routes.name AS route,
  count(DISTINCT trials.trace_id) AS traces,
  count(*) AS answers,
  count(DISTINCT traces.family) AS families,
  outcomes.excerpt,
  min(exchanges.id) AS example
FROM outcomes
JOIN exchanges ON exchanges.id = outcomes.exchange_id
JOIN routes ON routes.id = exchanges.route_id
JOIN trials ON trials.id = exchanges.trial_id
JOIN traces ON traces.id = trials.trace_id
WHERE exchanges.answered = 1 AND outcomes.text_hash IS NOT NULL
  AND outcomes.judge = (SELECT min(judge) FROM outcomes)
GROUP BY routes.id, outcomes.text_hash
HAVING count(DISTINCT trials.trace_id) > 1
ORDER BY traces DESC, answers DESC;
