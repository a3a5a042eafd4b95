"""Token counts and scores through one twin. What its server said before comes from the store."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from probe.attribution.sent import Sent
from probe.errors import ScoringError
from probe.evidence.case import normalised
from probe.evidence.repetition import TextChance, repeated_texts
from probe.evidence.systems import GENERIC_SYSTEMS
from probe.ids import json_hash
from probe.scoring.base import Score, Scorer, TextScore
from probe.store.scores import score_key, tokens_key
from probe.store.store import Store
from probe.traces.values import Message

PROMPTS_PER_TEXT = 32
"""Prompts under which a repeated text is scored: half of them its own, others that were refused up to this number."""

PROMPTS_PER_SYSTEM = 8
"""Of these, how many again under each generic system prompt."""

_PROMPTS = 4096
"""Prompts whose token ids are remembered beside the store."""

_UNSAVED = 200
"""Token ids that are written together; whoever is killed asks for so many again."""

_Ask = Callable[[Sequence[int], Sequence[int]], Awaitable[TextScore]]

SAMPLES: tuple[tuple[Message, ...], ...] = (
    (Message("user", "Say: naïve café, 12 345.67 €!"),),
    (
        Message("system", "Be brief."),
        Message("user", "First?\n\n  Second?"),
        Message("assistant", "Yes."),
        Message("user", "<|im_start|> [INST] Third? 日本"),
    ),
)
"""Conversations whose token ids tell one chat template and tokenizer from another."""


async def fingerprint(scorer: Scorer) -> str:
    """Return what tells the template and tokenizer of a server from others; raises ``ScoringError``."""
    prompts = [await scorer.prompt_ids(messages) for messages in SAMPLES]
    texts = [await scorer.text_ids(message.content) for messages in SAMPLES for message in messages]
    return json_hash([list(ids) for ids in (*prompts, *texts)])


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
    ``fingerprint`` of the server is asked for where it is not given. ``flush`` at the end.
    """

    store: Store
    scorer: Scorer | None
    weights: str
    tick: Callable[[], None] = lambda: None
    failure: str | None = None
    fingerprint: str | None = None
    _prompts: OrderedDict[tuple[Message, ...], tuple[int, ...]] = field(default_factory=OrderedDict)
    _unsaved: list[tuple[bytes, tuple[int, ...]]] = field(default_factory=list)

    async def counted(self, sent: Sent) -> Sent:
        """Return the case with its token counts."""
        if self.scorer is None or not sent.messages:
            return sent
        try:
            prompt = await self._prompt(sent.messages)
            text = await self._text(sent.case.reading.text)
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
        known = self._prompts.get(messages)
        if known is None:
            scorer, value = self.scorer, [[m.role, m.content] for m in messages]
            known = await self._ids("prompt", value, lambda: scorer.prompt_ids(messages))
            self._prompts[messages] = known
            if len(self._prompts) > _PROMPTS:
                self._prompts.popitem(last=False)
        return known

    async def _text(self, text: str) -> tuple[int, ...]:
        assert self.scorer is not None
        scorer = self.scorer
        return await self._ids("text", text, lambda: scorer.text_ids(text))

    async def _answer(self, messages: tuple[Message, ...], text: str, reasoning: str) -> tuple[int, ...]:
        assert self.scorer is not None
        if not reasoning:
            return await self._text(text)
        scorer, value = self.scorer, [[[m.role, m.content] for m in messages], text, reasoning]
        return await self._ids("answer", value, lambda: scorer.answer_ids(messages, text, reasoning))

    async def _ids(self, kind: str, value: object, ask: Callable[[], Awaitable[tuple[int, ...]]]) -> tuple[int, ...]:
        """Return token ids from the store, or from the server."""
        assert self.scorer is not None
        if self.fingerprint is None:
            self.fingerprint = await fingerprint(self.scorer)
        key = tokens_key((self.scorer.name, self.scorer.version, self.weights, self.fingerprint, kind), value)
        found = self.store.token_ids(key)
        if found is None:
            found = await ask()
            self._unsaved.append((key, found))
            if len(self._unsaved) >= _UNSAVED:
                self.flush()
        return found

    def flush(self) -> None:
        """Write the token ids that are not written yet."""
        if self._unsaved:
            self.store.save_token_ids(self._unsaved)
            self._unsaved.clear()

    async def _score(self, messages: tuple[Message, ...], text: str, reasoning: str = "") -> Score:
        assert self.scorer is not None
        scorer, prompt = self.scorer, await self._prompt(messages)
        ids = await self._answer(messages, text, reasoning)
        key = score_key(scorer.name, scorer.version, self.weights, prompt, ids)
        kept = self.store.kept_score(key)
        if kept is not None:
            self.tick()
            return kept
        # The server itself makes the ids of what it scores: it notes which of them are parts of characters.
        again = await scorer.answer_ids(messages, text, reasoning)
        return await self._made(scorer.score, scorer.version, prompt, again)

    async def _ending(self, messages: tuple[Message, ...], text: str) -> Score:
        assert self.scorer is not None
        scorer, prompt = self.scorer, await self._prompt(messages)
        version = f"{scorer.version}/end"
        key = score_key(scorer.name, version, self.weights, prompt, await self._text(text))
        kept = self.store.score(key)
        if kept is not None:
            self.tick()
            return kept
        return await self._made(scorer.ends, version, prompt, await scorer.text_ids(text))

    async def _made(self, ask: _Ask, version: str, prompt: tuple[int, ...], ids: tuple[int, ...]) -> TextScore:
        assert self.scorer is not None
        score = await ask(prompt, ids)
        key = score_key(self.scorer.name, version, self.weights, prompt, ids)
        self.store.save_score(key, score, scorer=self.scorer.name, version=version, weights=self.weights)
        self.tick()
        return score
