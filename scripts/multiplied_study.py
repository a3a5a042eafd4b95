"""A large study made of a small recorded one: every copy has traces, texts, ids, times and scores of its own.

What is copied was recorded on real inference and scored by the real scorer. A copy spells the longer words that are not
part of the language of refusals in other letters (vowels for vowels, consonants for consonants, drawn per copy), in
requests and answers alike and across the pieces of a stream, so that requests and answers differ from copy to copy
while canned texts and blocks repeat themselves, as they do in reality. Lengths stay, so chunks fit their bodies. Ids of
responses are drawn anew, all times of an exchange are stretched by one factor.

``StandIn`` answers what the twin's server would be asked for the copies: the token ids and scores of the original,
with other ids where the spelling differs and log-probabilities off by a thousandth. It only serves to fill the caches.
"""

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from probe.ids import new_id
from probe.scoring.base import TextScore, TokenScore
from probe.store.exchanges import save
from probe.store.rows import RunRow, TrialRow
from probe.store.scores import score_key, tokens_key
from probe.store.store import Store
from probe.traces.values import Message, Trace
from probe.wire.dialects import dialect
from probe.wire.values import Exchange

VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"
_SAID = re.compile(r'("content": ?")((?:[^"\\]|\\.)*)(?=")')
_WORD = re.compile(r"[a-z]{5,}")
_RESPONSE_ID = re.compile(r"gen-\d+-[0-9a-f]{20}|chatcmpl-[0-9A-Za-z]{24,}")
_BETWEEN = "\0"

Ids = tuple[int, ...]


class Spelling:
    """How one copy spells: copy 0 like the original."""

    def __init__(self, copy: int, kept: frozenset[str]) -> None:
        chance = random.Random(f"spelling {copy}")
        letters = {}
        for group in (VOWELS, CONSONANTS):
            other = list(group)
            chance.shuffle(other)
            letters |= dict(zip(group, other, strict=True))
        self._letters = {} if copy == 0 else str.maketrans(letters)
        self._kept = kept

    def text(self, text: str) -> str:
        """Return a text as this copy spells it: of the same length."""
        if not self._letters:
            return text
        return _WORD.sub(lambda m: m[0] if m[0] in self._kept else m[0].translate(self._letters), text)

    def body(self, body: bytes, between: str) -> bytes:
        """Return a body with the texts under ``content`` in this spelling; words may go on across ``between``."""
        if not self._letters:
            return body
        plain = body.decode()
        pieces = [found[2] for found in _SAID.finditer(plain)]
        # Escapes stay as they are, and their letters are no letters.
        hidden = ["." * len(piece) if "\\" in piece else piece for piece in pieces]
        text, at, spelt = self.text(between.join(hidden)), 0, []
        for piece in pieces:
            spelt.append(piece if "\\" in piece else text[at : at + len(piece)])
            at += len(piece) + len(between)
        told = iter(spelt)
        return _SAID.sub(lambda m: m[1] + next(told), plain).encode()


@dataclass
class StandIn:
    """A scorer for the copies of a study: see above. ``weights`` are those of the original's scores."""

    store: Store
    name: str
    version: str
    vocabulary: int
    weights: str
    print: str
    _texts: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    _prompts: dict[bytes, tuple[tuple[Message, ...], int]] = field(default_factory=dict)
    _of_ids: dict[Ids, tuple[str, tuple[Message, ...] | None]] = field(default_factory=dict)
    _own_prompt: dict[str, tuple[Message, ...]] = field(default_factory=dict)

    def know(self, copy: int, messages: tuple[tuple[Message, ...], ...], texts: tuple[str, str]) -> None:
        """Note (original, copied) messages and texts."""
        self._prompts.setdefault(_digest(repr(messages[1])), (messages[0], copy))
        self._texts.setdefault(_digest(texts[1]), (texts[0], copy))
        self._own_prompt.setdefault(texts[0], messages[0])

    async def prompt_ids(self, messages: Sequence[Message]) -> Ids:
        """Return the ids of the original prompt, other ones in the middle; of an unknown one, ids by its bytes."""
        known = self._prompts.get(_digest(repr(tuple(messages))))
        if known is None:
            return _foreign_ids(repr(tuple(messages)), self.vocabulary)
        ids = self._kept("prompt", [[m.role, m.content] for m in known[0]])
        return self._shifted(ids, known[1], range(4, len(ids) - 4))

    async def text_ids(self, text: str) -> Ids:
        """Return the ids of the original text, other ones where the spelling differs."""
        known = self._texts.get(_digest(text))
        if known is None:
            return _foreign_ids(text, self.vocabulary)
        original, copy = known
        ids = self._kept("text", original)
        width = max(len(text) / max(len(ids), 1), 1e-9)
        differ = [i for i in range(len(ids)) if _span(original, i, width) != _span(text, i, width)]
        found = self._shifted(ids, copy, differ)
        self._of_ids.setdefault(found, (original, self._own_prompt.get(original)))
        return found

    async def answer_ids(self, messages: Sequence[Message], text: str, reasoning: str) -> Ids:
        """Return the ids of the text; the embedded weights do not reason."""
        del messages, reasoning
        return await self.text_ids(text)

    async def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Return the original's score, a little off."""
        return self._score(self.version, prompt, continuation)

    async def ends(self, prompt: Sequence[int], continuation: Sequence[int]) -> TextScore:
        """Return how probable the original's end is, a little off."""
        return self._score(f"{self.version}/end", prompt, continuation)

    async def aclose(self) -> None:
        """Do nothing."""

    def _score(self, version: str, prompt: Sequence[int], ids: Sequence[int]) -> TextScore:
        chance = random.Random(hashlib.sha256(repr((version, tuple(prompt), tuple(ids))).encode()).digest())
        original, messages = self._of_ids.get(tuple(ids), ("", None))
        if messages is not None:
            asked = self._kept("prompt", [[m.role, m.content] for m in messages])
            key = score_key(self.name, version, self.weights, asked, self._kept("text", original))
            found = self.store.score(key)
            if found is not None:
                own = ids if len(ids) == len(found.tokens) else [token.token_id for token in found.tokens]
                pairs = zip(found.tokens, own, strict=True)
                return TextScore(tuple(_off(token, new, chance) for token, new in pairs), found.vocabulary)
        top = (-0.7, -1.4, -2.4)
        count = 1 if version.endswith("/end") else len(ids)
        return TextScore(tuple(TokenScore(int(i), -0.7, top, 1) for i in list(ids)[:count]), self.vocabulary)

    def _kept(self, kind: str, value: object) -> Ids:
        key = tokens_key((self.name, self.version, self.weights, self.print, kind), value)
        return self.store.token_ids(key) or _foreign_ids(json.dumps(value), self.vocabulary)

    def _shifted(self, ids: Ids, copy: int, places: Sequence[int] | range) -> Ids:
        if copy == 0:
            return ids
        found = list(ids)
        for place in places:
            found[place] = (found[place] + 31 * copy) % self.vocabulary
        return tuple(found)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _span(text: str, place: int, width: float) -> str:
    return text[int(place * width) : int((place + 1) * width)]


def _foreign_ids(text: str, vocabulary: int) -> Ids:
    return tuple(byte * 7 % vocabulary for byte in text.encode("utf-8", "replace")[::4])


def _off(token: TokenScore, token_id: int, chance: random.Random) -> TokenScore:
    logprob = min(token.logprob * (1.0 + chance.gauss(0.0, 1e-3)), 0.0)
    top = list(token.top)
    if token.rank is not None and token.rank <= len(top):
        top[token.rank - 1] = logprob
        top.sort(reverse=True)
    return TokenScore(int(token_id), logprob, tuple(top), token.rank, token.text)


@dataclass(frozen=True)
class Original:
    """A recorded exchange with its trace and what was said."""

    exchange: Exchange
    trace: Trace
    repeat: int
    messages: tuple[Message, ...]
    text: str


def originals(store: Store) -> list[list[Original]]:
    """Return the answers of a recorded study, those of one trace and repeat over all routes together."""
    routes, traces = store.routes(), store.traces()
    units: dict[tuple[str, int], list[Original]] = {}
    for route_id, route in routes.items():
        speaks = dialect(route.dialect)
        for ref in store.refs(route_id=route_id, answered=True):
            if ref.trace_id is None or ref.repeat is None:
                continue
            exchange = store.exchange(ref.id)
            asked = speaks.read_request(exchange.request_body).messages
            one = Original(exchange, traces[ref.trace_id], ref.repeat, asked, speaks.read(exchange).text)
            units.setdefault((ref.trace_id, ref.repeat), []).append(one)
    return list(units.values())


def copies(
    units: Sequence[Sequence[Original]], store: Store, count: int, kept: frozenset[str], stand_in: StandIn
) -> None:
    """Write ``count`` exchanges into an empty study that knows the original's routes and weights."""
    chance, written, copy = random.Random(count), 0, 0
    blobs = store._blobs  # noqa: SLF001 - the writer's own way, without its thread
    while written < count:
        spelling, traces = Spelling(copy, kept), dict[str, Trace]()
        # A run each: where a trace has no word to spell otherwise, two copies share it.
        started = units[0][0].exchange.started_at + 1000.0 * copy
        run = RunRow(started_at=started, seed=copy, manifest={"copy": copy}, ended_at=started + 999.0)
        store.add_run(run)
        with store.transaction():
            for unit in units:
                for original in unit[: count - written]:
                    trace = traces.get(original.trace.id)
                    if trace is None:
                        trace = traces[original.trace.id] = _respelt(original.trace, spelling, copy)
                        store.add_traces([trace])
                    trial = TrialRow(run.id, trace.id, original.exchange.route_id, original.repeat, written)
                    store.add_trials([trial])
                    made = _copied(original, spelling, trial.id, copy, chance)
                    save(store.connection, blobs, made, "answered")
                    new = tuple(Message(m.role, spelling.text(m.content)) for m in original.messages)
                    stand_in.know(copy, (original.messages, new), (original.text, spelling.text(original.text)))
                    written += 1
        copy += 1


def _respelt(trace: Trace, spelling: Spelling, copy: int) -> Trace:
    messages = tuple(Message(m.role, spelling.text(m.content)) for m in trace.messages)
    return replace(trace, name=f"{trace.name}-{copy}", messages=messages)


def _copied(original: Original, spelling: Spelling, trial_id: str, copy: int, chance: random.Random) -> Exchange:
    old = original.exchange
    body = spelling.body(old.response_body, "")
    found = _RESPONSE_ID.search(body[:2000].decode("utf-8", "replace"))
    if found is not None and copy:
        body = body.replace(found[0].encode(), _redrawn(found[0], chance).encode())
    factor = chance.lognormvariate(0.0, 0.1)
    headers = tuple(
        (name, _redrawn(value, chance)) if name.lower() == "x-request-id" else (name, value)
        for name, value in old.response_headers
    )
    return replace(
        old,
        id=new_id(),
        trial_id=trial_id,
        started_at=old.started_at + 1000.0 * copy,
        request_body=spelling.body(old.request_body, _BETWEEN),
        response_headers=headers,
        response_body=body,
        chunks=tuple(replace(chunk, at=chunk.at * factor) for chunk in old.chunks),
        sent_at=None if old.sent_at is None else old.sent_at * factor,
        head_at=None if old.head_at is None else old.head_at * factor,
        ended_at=None if old.ended_at is None else old.ended_at * factor,
    )


def _redrawn(name: str, chance: random.Random) -> str:
    """Return an id like this one: digits for digits, letters for letters; what comes before the last dash stays."""
    head, dash, tail = name.rpartition("-")
    kinds = ("0123456789abcdef",) if re.fullmatch(r"[0-9a-f]+", tail) else ("0123456789", "abcdefghijklmnop")
    letters = kinds[0] if len(kinds) == 1 else kinds[0] + kinds[1] + kinds[1].upper()
    return f"{head}{dash}{''.join(chance.choices(letters, k=len(tail)))}"


def language_of_refusals(texts: Mapping[str, int], least: float = 0.02) -> frozenset[str]:
    """Return the words that at least this share of refusals has; ``texts``: refusals and how often each came."""
    counts: dict[str, int] = {}
    for text, number in texts.items():
        for word in set(_WORD.findall(text)):
            counts[word] = counts.get(word, 0) + number
    total = sum(texts.values())
    return frozenset(word for word, number in counts.items() if number >= least * total)
