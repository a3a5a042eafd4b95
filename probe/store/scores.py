"""The cache of token scores: the dearest derived thing, because every row costs a request to the twin.

A score is packed as little-endian numbers and compressed: per token its id (u32), rank (u32, 0 where unknown), the
number of top logprobs (u16) and its logprob (f64), all as columns one after the other (like compresses with like),
then the top logprobs of all tokens (f64), then what the tokens spell as a JSON list; rows of earlier versions end
before it, and their tokens spell nothing. Doubles, so that a cached score equals the fresh one to the last bit.
"""

import json
import struct
import sys
import threading
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import zstandard

from probe.errors import StoreError
from probe.ids import canonical_json, content_hash, json_hash
from probe.scoring.base import KeptScore, ScoreColumns, TextScore, TokenScore
from probe.store.columns import plain
from probe.store.session import Session

_COLUMNS = ("key", "scorer", "version", "weights", "vocabulary", "tokens", "data")


def score_key(scorer: str, version: str, weights: str, prompt: Sequence[int], continuation: Sequence[int]) -> str:
    """Return the content hash under which a score is kept."""
    return json_hash([scorer, version, weights, [int(t) for t in prompt], [int(t) for t in continuation]])


_of_thread = threading.local()


def _decompressor() -> zstandard.ZstdDecompressor:
    """Return this thread's: making one takes longer than using it."""
    found: zstandard.ZstdDecompressor | None = getattr(_of_thread, "decompressor", None)
    if found is None:
        found = _of_thread.decompressor = zstandard.ZstdDecompressor()
    return found


def tokens_key(names: Sequence[str], value: object) -> bytes:
    """Return the key under which token ids of a text, or of a conversation as a JSON value, are kept."""
    return bytes.fromhex(content_hash(canonical_json([*names, value]))[:32])


def pack(score: TextScore) -> bytes:
    """Return a score as bytes."""
    tokens = score.tokens
    count = len(tokens)
    tops = [value for token in tokens for value in token.top]
    raw = b"".join(
        (
            struct.pack(f"<I{count}I", count, *(token.token_id for token in tokens)),
            struct.pack(f"<{count}I", *(token.rank or 0 for token in tokens)),
            struct.pack(f"<{count}H", *(len(token.top) for token in tokens)),
            struct.pack(f"<{count}d", *(token.logprob for token in tokens)),
            struct.pack(f"<{len(tops)}d", *tops),
            json.dumps([token.text for token in tokens]).encode() if any(token.text for token in tokens) else b"",
        )
    )
    return zstandard.ZstdCompressor().compress(raw)


@dataclass(frozen=True, slots=True)
class PackedScore:
    """A score as it lies in the store."""

    data: bytes
    vocabulary: int

    def score(self) -> TextScore:
        """Return the score; raises ``StoreError`` where it is damaged."""
        return unpack(self.data, self.vocabulary)

    def columns(self) -> ScoreColumns:
        """Return ids, log-probabilities and alternatives as arrays, faster; raises ``StoreError``."""
        import numpy as np

        try:
            raw = _decompressor().decompress(self.data)
            (count,) = struct.unpack_from("<I", raw)
            ids = np.frombuffer(raw, "<u4", count, 4)
            lengths = np.frombuffer(raw, "<u2", count, 4 + 8 * count)
            logprobs = np.frombuffer(raw, "<f8", count, 4 + 10 * count)
            top = np.frombuffer(raw, "<f8", int(lengths.sum()), 4 + 18 * count)
        except (zstandard.ZstdError, struct.error, ValueError) as error:
            raise _damaged(error) from error
        return ScoreColumns(ids, logprobs, lengths, top)  # type: ignore[arg-type]


def _damaged(error: Exception) -> StoreError:
    return StoreError(f"A cached score is damaged ({error}): clear the scores and make them again.")


def unpack(data: bytes, vocabulary: int) -> TextScore:
    """Return the score that :func:`pack` wrote; raises ``StoreError`` where the bytes are damaged."""
    try:
        raw = _decompressor().decompress(data)
        (count,) = struct.unpack_from("<I", raw)
        at = 4
        columns = []
        for kind in "IIHd":
            columns.append(struct.unpack_from(f"<{count}{kind}", raw, at))
            at += struct.calcsize(f"<{count}{kind}")
        ids, ranks, lengths, logprobs = columns
        tops = struct.unpack_from(f"<{sum(lengths)}d", raw, at)
        texts = _texts(raw[at + struct.calcsize(f"<{sum(lengths)}d") :], count)
    except (zstandard.ZstdError, struct.error, ValueError) as error:
        raise _damaged(error) from error
    tokens, start = [], 0
    for token_id, rank, length, logprob, text in zip(ids, ranks, lengths, logprobs, texts, strict=True):
        tokens.append(TokenScore(token_id, logprob, tops[start : start + length], rank or None, text))
        start += length
    return TextScore(tuple(tokens), vocabulary)


def _texts(data: bytes, count: int) -> list[str]:
    texts = json.loads(data) if data else [""] * count
    if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise ValueError("texts that do not belong to the tokens")
    return texts


class ScoreTable(Session):
    """Reading and writing the cache."""

    def score(self, key: str) -> TextScore | None:
        """Return a cached score, or ``None``."""
        rows = self.query("SELECT data, vocabulary FROM likelihoods WHERE key = ?", (key,))
        return unpack(*rows[0]) if rows else None

    def kept_score(self, key: str) -> KeptScore | None:
        """Return a cached score that stays in the store until it is looked at, or ``None`` where there is none."""
        rows = self.query("SELECT tokens, vocabulary FROM likelihoods WHERE key = ?", (key,))
        return KeptScore(rows[0][0], rows[0][1], partial(self._packed, key)) if rows else None

    def _packed(self, key: str) -> PackedScore:
        rows = self.query("SELECT data, vocabulary FROM likelihoods WHERE key = ?", (key,))
        if not rows:
            raise StoreError(f"The score {key} is gone from {self.path}: analyse again.")
        return PackedScore(*rows[0])

    def token_ids(self, key: bytes) -> tuple[int, ...] | None:
        """Return cached token ids, or ``None``."""
        rows = self.query("SELECT ids FROM tokens WHERE key = ?", (key,))
        return tuple(_ids(rows[0][0])) if rows else None

    def save_token_ids(self, found: Iterable[tuple[bytes, Sequence[int]]]) -> None:
        """Keep token ids under the keys that ``tokens_key`` made."""
        rows = [(key, struct.pack(f"<{len(ids)}I", *ids)) for key, ids in found]
        self._put("tokens", ("key", "ids"), rows, known="ON CONFLICT DO NOTHING")

    def save_score(
        self,
        key: str,
        score: TextScore,
        *,
        scorer: str,
        version: str,
        weights: str,
    ) -> None:
        """Keep a score under the key that ``score_key`` made of its names and token ids."""
        row = (key, plain(scorer), plain(version), plain(weights), score.vocabulary, len(score.tokens), pack(score))
        self._put("likelihoods", _COLUMNS, [row], known="ON CONFLICT DO NOTHING")

    def clear_scores(self) -> None:
        """Empty the cache."""
        with self.transaction():
            self._write("DELETE FROM likelihoods", [()])
            self._write("DELETE FROM tokens", [()])


def _ids(data: bytes) -> array[int]:
    if len(data) % 4:
        raise StoreError("Cached token ids are damaged: clear the scores and make them again.")
    found = array("I", data)
    if sys.byteorder == "big":
        found.byteswap()
    return found
