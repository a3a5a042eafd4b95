"""From stored exchanges to cases: read, judge, count tokens, score under the twin. Scores are cached in the store."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from probe.errors import ProbeError, ScoringError
from probe.evidence.case import Case, normalised
from probe.evidence.repetition import TextChance, repeated_texts
from probe.evidence.systems import GENERIC_SYSTEMS
from probe.ids import json_hash
from probe.judge.base import Judge, Judgement
from probe.scoring.base import Scorer, TextScore
from probe.store.rows import ExchangeRef, OutcomeRow, RouteRow
from probe.store.scores import score_key
from probe.store.store import Store
from probe.traces.values import Message, Trace
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect
from probe.wire.signatures import CANNED, Match, match_signatures
from probe.wire.values import RequestReading

PROMPTS_PER_TEXT = 32
"""Prompts under which a repeated text is scored: half of them its own, others that were refused up to this number."""

PROMPTS_PER_SYSTEM = 8
"""Of these, how many again under each generic system prompt."""

_Ask = Callable[[Sequence[int], Sequence[int]], Awaitable[TextScore]]


@dataclass(frozen=True, slots=True)
class Sent:
    """A case with where it belongs and what was asked. ``run_id`` and ``repeat`` are ``None`` outside any plan."""

    case: Case
    route_id: str
    run_id: str | None
    repeat: int | None
    messages: tuple[Message, ...]
    unscorable: str | None
    outcome: OutcomeRow


def read_cases(
    store: Store, route: RouteRow, refs: Iterable[ExchangeRef], traces: Mapping[str, Trace], judge: Judge
) -> list[Sent]:
    """Read and judge answered exchanges of one route."""
    speaks, backend = dialect(route.dialect), load_backend(route.backend)
    found = []
    for ref in refs:
        exchange = store.exchange(ref.id)
        reading = speaks.read(exchange)
        matches = match_signatures(backend, exchange, reading)
        named = {match.author for match in matches if match.author != "unknown"}
        # Two declarations that contradict each other declare nothing.
        author = named.pop() if len(named) == 1 else None
        judgement = _known(judge.judge(reading, exchange.status, author, blocked=author is not None), matches)
        try:
            request = speaks.read_request(exchange.request_body)
        except ProbeError as error:
            request = RequestReading(model=None, messages=(), sampling={}, stream=False, extra=(str(error),))
        trace = traces.get(ref.trace_id or "")
        text_hash, excerpt = OutcomeRow.of_text(reading.text)
        row = OutcomeRow(
            exchange_id=ref.id,
            judge=judge.name,
            judge_version=judge.version,
            outcome=judgement.outcome,
            confidence=judgement.confidence,
            reason=judgement.reason,
            text_hash=text_hash,
            excerpt=excerpt,
        )
        case = Case(
            exchange_id=ref.id,
            # Traffic of other clients has no trace; the conversation itself identifies it.
            trace_id=ref.trace_id or json_hash([[m.role, m.content] for m in request.messages]),
            control=bool(trace and trace.control),
            outcome=judgement.outcome,
            reading=reading,
            matches=matches,
            sampling=request.sampling,
            exchange=exchange,
            repeat=ref.repeat,
            nonce=_nonce(trace),
        )
        found.append(
            Sent(case, ref.route_id, ref.run_id, ref.repeat, request.messages, _unscorable(case, request), row)
        )
    return found


def _known(judgement: Judgement, matches: Sequence[Match]) -> Judgement:
    """Return the judgement, or ``refused`` where the whole text is a known message of a platform, in any language."""
    message = next(
        (m for m in matches if m.signature.startswith(CANNED) and m.sentence.startswith("The text is")), None
    )
    if message is None or judgement.outcome not in {"ungradable", "complied"}:
        return judgement
    return Judgement("refused", judgement.confidence, message.sentence)


def _nonce(trace: Trace | None) -> str | None:
    return None if trace is None or not trace.labels.get("nonce") else str(trace.labels["nonce"])


def _unscorable(case: Case, request: RequestReading) -> str | None:
    if not request.messages:
        return "the request could not be read"
    if request.extra:
        return f"the request carried {', '.join(request.extra)}, which may change what the model sees"
    if not case.reading.text:
        return "there is no text"
    return None


def under_system(system: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the conversation with a system prompt before it, as a platform would hide one: before the client's own."""
    if messages and messages[0].role == "system":
        return (Message("system", f"{system}\n\n{messages[0].content}"), *messages[1:])
    return (Message("system", system), *messages)


def _by_hash(cases: Iterable[Sent]) -> list[Sent]:
    """Return one case per trace, in an order that is the same on all routes, so that scores are made once."""
    first = {sent.case.trace_id: sent for sent in cases}
    return [first[key] for key in sorted(first, key=lambda trace: json_hash([trace]))]


@dataclass
class ScoringDesk:
    """Counts and scores through one twin, remembering what was asked before.

    ``failure`` keeps the first reason why the twin could not score; the cases concerned say so and stay unscored.
    """

    store: Store
    scorer: Scorer | None
    weights: str
    tick: Callable[[], None] = lambda: None
    failure: str | None = None
    _prompts: dict[tuple[Message, ...], tuple[int, ...]] = field(default_factory=dict)

    async def counted(self, sent: Sent) -> Sent:
        """Return the case with its token counts."""
        if self.scorer is None or not sent.messages:
            return sent
        try:
            prompt = await self._prompt(sent.messages)
            text = await self.scorer.text_ids(sent.case.reading.text)
        except ScoringError as error:
            self.failure = self.failure or str(error)
            return sent
        return replace(sent, case=replace(sent.case, prompt_tokens=len(prompt), text_tokens=len(text)))

    async def scored(self, sent: Sent) -> Sent:
        """Return the case with its score, or with the reason why it has none."""
        reason = sent.unscorable
        if reason is None and self.scorer is None:
            reason = "no twin scores texts"
        if reason is None:
            try:
                score = await self._score(sent.messages, sent.case.reading.text, sent.case.reading.reasoning)
                return replace(sent, case=replace(sent.case, score=score))
            except ScoringError as error:
                self.failure = self.failure or str(error)
                reason = "the twin could not score it"
        return replace(sent, case=replace(sent.case, unscored=reason))

    async def ended(self, sent: Sent) -> Sent:
        """Return the case with the probability that the twin ends the text there, where it is said to have ended."""
        case = sent.case
        said = case.outcome == "complied" and case.reading.finish_reason == "stop" and not case.reading.reasoning
        if self.scorer is None or sent.unscorable is not None or not said:
            return sent
        try:
            ending = (await self._ending(sent.messages, case.reading.text)).logprob
        except ScoringError as error:
            self.failure = self.failure or str(error)
            return sent
        return replace(sent, case=replace(case, ending=ending))

    async def chances(self, hosted: Sequence[Sent]) -> dict[str, TextChance]:
        """Score every repeated refusal under its own prompts and further ones that were refused.

        Again with generic safety prompts before them: what a hidden prompt may make the weights say.
        """
        if self.scorer is None:
            return {}
        found = {}
        # What was reasoned before a text is its prompt too, and no other answer has it.
        plain = [s for s in hosted if s.case.refused and s.unscorable is None and not s.case.reading.reasoning]
        refused = _by_hash(s for s in plain if not s.case.control)
        for text in repeated_texts([sent.case for sent in hosted]):
            own = _by_hash(s for s in plain if normalised(s.case.text) == text)
            if not own:
                continue
            mine, spoken = {s.case.trace_id for s in own}, own[0].case.reading.text
            rest = [s for s in refused if s.case.trace_id not in mine]
            # Its own prompts first: should the weights like it there, the probability is taken from above.
            first = own[: max(PROMPTS_PER_TEXT // 2, PROMPTS_PER_TEXT - len(rest))]
            asked = [s.messages for s in (first + rest)[:PROMPTS_PER_TEXT]]
            try:
                alone = await self._probabilities(asked, spoken)
                systems = [
                    await self._probabilities([under_system(system, m) for m in asked[:PROMPTS_PER_SYSTEM]], spoken)
                    for system in GENERIC_SYSTEMS
                ]
            except ScoringError as error:
                self.failure = self.failure or str(error)
                continue
            found[text] = TextChance(alone, tuple(systems))
        return found

    async def _probabilities(self, prompts: Iterable[tuple[Message, ...]], text: str) -> tuple[float, ...]:
        scores = await asyncio.gather(*(self._score(messages, text) for messages in prompts))
        return tuple(score.probability for score in scores)

    async def _prompt(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        assert self.scorer is not None
        if messages not in self._prompts:
            self._prompts[messages] = await self.scorer.prompt_ids(messages)
        return self._prompts[messages]

    async def _score(self, messages: tuple[Message, ...], text: str, reasoning: str = "") -> TextScore:
        assert self.scorer is not None
        ids = await self.scorer.answer_ids(messages, text, reasoning)
        return await self._cached(self.scorer.score, self.scorer.version, await self._prompt(messages), ids)

    async def _ending(self, messages: tuple[Message, ...], text: str) -> TextScore:
        assert self.scorer is not None
        ids = await self.scorer.text_ids(text)
        return await self._cached(self.scorer.ends, f"{self.scorer.version}/end", await self._prompt(messages), ids)

    async def _cached(self, ask: _Ask, version: str, prompt: tuple[int, ...], ids: tuple[int, ...]) -> TextScore:
        assert self.scorer is not None
        key = score_key(self.scorer.name, version, self.weights, prompt, ids)
        score = self.store.score(key)
        if score is None:
            score = await ask(prompt, ids)
            self.store.save_score(key, score, scorer=self.scorer.name, version=version, weights=self.weights)
        self.tick()
        return score
