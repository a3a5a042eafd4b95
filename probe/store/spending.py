"""The journal of hosted requests: noted before they leave, and again with what they cost.

A request that was noted and never ended was under way when the run was killed. It may have been answered and billed, so
it counts with all that was reserved for it. Exchanges of files from before the journal count too: each as a request
with the most that it can have cost in tokens (the bytes of its request; the bytes of its answer, or ``max_tokens``
where that is less). So do those outside any plan, for the limits of a day. A ``GET`` asks no model and costs nothing.
"""

import sqlite3

from probe.store.rows import AttemptEnd, AttemptRow, Counted, Spent
from probe.store.session import Session

_COLUMNS = (
    "trial_id",
    "route_id",
    "attempt",
    "begun_at",
    "reserved_prompt",
    "reserved_completion",
    "reserved_nanousd",
    "id",
)
_BEGIN = f"INSERT INTO attempts ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_END = """
UPDATE attempts SET ended = 1, exchange_id = ?, prompt_tokens = ?, completion_tokens = ?, nanousd = ?, source = ?
WHERE id = ? AND ended = 0
"""
_IN_FLIGHT = f"""
SELECT {", ".join(f"attempts.{column}" for column in _COLUMNS)}
FROM attempts JOIN trials ON trials.id = attempts.trial_id
WHERE run_id = ? AND ended = 0 ORDER BY begun_at, attempts.id
"""  # noqa: S608

_JOURNAL = """
SELECT
  attempts.route_id AS route_id,
  CASE ended WHEN 1 THEN prompt_tokens ELSE reserved_prompt END AS prompt,
  CASE ended WHEN 1 THEN completion_tokens ELSE reserved_completion END AS completion,
  CASE ended WHEN 1 THEN nanousd ELSE reserved_nanousd END AS nanousd
FROM attempts
WHERE (source IS NULL OR source <> 'unsent')
"""

# The journal names the exchange that ended an attempt. One that was recorded while its attempt is still under way is
# of that attempt, which counts already.
_BEFORE_THE_JOURNAL = """
SELECT
  exchanges.route_id AS route_id,
  CASE exchanges.state WHEN 'unreachable' THEN 0 ELSE request.size END AS prompt,
  min(response.size, coalesce(json_extract(traces.sampling, '$.max_tokens'), response.size)) AS completion,
  NULL AS nanousd
FROM exchanges
JOIN routes ON routes.id = exchanges.route_id AND role = 'hosted'
JOIN blobs AS request ON request.hash = request_body
JOIN blobs AS response ON response.hash = response_body
LEFT JOIN trials ON trials.id = exchanges.trial_id
LEFT JOIN traces ON traces.id = trials.trace_id
WHERE exchanges.method = 'POST' AND NOT EXISTS (
  SELECT 1 FROM attempts
  WHERE attempts.trial_id = exchanges.trial_id
    AND (attempts.exchange_id = exchanges.id OR (ended = 0 AND attempts.attempt = exchanges.attempt))
)
"""

_SPENT = f"""
SELECT route_id, count(*), sum(prompt), sum(completion), coalesce(sum(nanousd), 0),
  sum(nanousd IS NULL),
  coalesce(sum(CASE WHEN nanousd IS NULL THEN prompt END), 0),
  coalesce(sum(CASE WHEN nanousd IS NULL THEN completion END), 0)
FROM (
  {_JOURNAL} AND trial_id IN (SELECT id FROM trials WHERE run_id = :run)
  UNION ALL
  {_BEFORE_THE_JOURNAL} AND run_id = :run
)
GROUP BY route_id
"""  # noqa: S608

_SINCE = f"""
WITH shared AS (
  SELECT other.id AS id FROM routes AS this
  JOIN routes AS other ON other.url = this.url AND other.model = this.model
  WHERE this.id = :route
)
SELECT count(*), coalesce(sum(prompt + completion), 0) FROM (
  {_JOURNAL} AND attempts.route_id IN (SELECT id FROM shared) AND begun_at >= :since
  UNION ALL
  {_BEFORE_THE_JOURNAL} AND exchanges.route_id IN (SELECT id FROM shared) AND exchanges.started_at >= :since
)
"""  # noqa: S608


def begin(connection: sqlite3.Connection, attempt: AttemptRow) -> None:
    """Note a request that is about to leave, inside the caller's transaction. Raises ``sqlite3.Error``."""
    connection.execute(_BEGIN, [getattr(attempt, column) for column in _COLUMNS])


def end(connection: sqlite3.Connection, attempt: AttemptEnd, exchange_id: str | None = None) -> None:
    """Note what an attempt cost, inside the caller's transaction. Raises ``sqlite3.Error``.

    The first end holds. An exchange that comes for an attempt that has ended, or that nobody noted, is counted like one
    from before the journal: rather once too often than not at all.
    """
    connection.execute(
        _END,
        (
            exchange_id,
            attempt.prompt_tokens,
            attempt.completion_tokens,
            attempt.nanousd,
            attempt.source,
            attempt.attempt_id,
        ),
    )


class AttemptTable(Session):
    """Reading the journal. ``Writer`` writes it."""

    def spent(self, run_id: str) -> dict[str, Spent]:
        """Return what the requests of a run to hosted routes have cost, by route id, over all its starts."""
        return {row[0]: Spent(*row[1:]) for row in self.query(_SPENT, {"run": run_id})}

    def counted_since(self, route_id: str, unix_time: float) -> Counted:
        """Return how much a hosted route was asked since a time, over all runs of the study.

        Routes with the same address and model count together: a provider's daily limit does not care that the options
        of a request were edited, which makes another route of it here.
        """
        return Counted(*self.query(_SINCE, {"route": route_id, "since": unix_time})[0])

    def in_flight(self, run_id: str) -> list[AttemptRow]:
        """Return the attempts of a run that began and never ended, oldest first: under way, or killed half-way."""
        return [AttemptRow(*row) for row in self.query(_IN_FLIGHT, (run_id,))]
