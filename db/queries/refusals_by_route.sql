-- Refusals by route and verdict: how often, of how many answers, and who is behind them.
-- Rates here are bare counts for a first look; `probe report` gives them with their intervals.
SELECT
  routes.name AS route,
  routes.role,
  outcomes.judge,
  coalesce(verdicts.who, 'not asked') AS behind,
  count(*) AS refusals,
  (
    SELECT count(*)
    FROM exchanges AS others JOIN outcomes AS judged ON judged.exchange_id = others.id
    WHERE others.route_id = routes.id AND others.answered = 1 AND judged.judge = outcomes.judge
  ) AS answers
FROM exchanges
JOIN routes ON routes.id = exchanges.route_id
JOIN outcomes ON outcomes.exchange_id = exchanges.id
LEFT JOIN verdicts ON verdicts.exchange_id = exchanges.id
WHERE exchanges.answered = 1 AND outcomes.outcome IN ('refused', 'blocked')
GROUP BY routes.id, outcomes.judge, behind
ORDER BY routes.role, routes.name, outcomes.judge, refusals DESC;
