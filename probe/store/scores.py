"""The cache of token scores: the dearest derived thing, because every row costs a request to the twin.

A score is packed as little-endian numbers and compressed: per token its id (u32), rank (u32, 0 where unknown), the
number of top logprobs (u16) and its logprob (f64), all as columns one after the other (like compresses with like),
then the top logprobs of all tokens (f64), then what the tokens spell as a JSON list; rows of earlier versions end
before it, and their tokens spell nothing. Doubles, so that a cached score equals the fresh one to the last bit.
"""

import json
import struct
from collections.abc import Sequence

import zstandard

from probe.errors import StoreError
from probe.ids import json_hash
from probe.scoring.base import TextScore, TokenScore
from probe.store.columns import plain
from probe.store.session import Session

_COLUMNS = ("key", "scorer", "version", "weights", "vocabulary", "tokens", "data")


def score_key(scorer: str, version: str, weights: str, prompt: Sequence[int], continuation: Sequence[int]) -> str:
    """Return the content hash under which a score is kept."""
    return json_hash([scorer, version, weights, [int(t) for t in prompt], [int(t) for t in continuation]])


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


def unpack(data: bytes, vocabulary: int) -> TextScore:
    """Return the score that :func:`pack` wrote; raises ``StoreError`` where the bytes are damaged."""
    try:
        raw = zstandard.ZstdDecompressor().decompress(data)
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
        raise StoreError(f"A cached score is damaged ({error}): clear the scores and make them again.") from error
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
        self._write("DELETE FROM likelihoods", [()])
