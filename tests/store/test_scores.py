import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import StoreError
from probe.scoring.base import TextScore, TokenScore
from probe.store import Store
from probe.store.scores import pack, score_key, unpack

LOGPROB = st.floats(max_value=0, allow_nan=False)
TOKENS = st.lists(
    st.builds(
        TokenScore,
        token_id=st.integers(0, 2**32 - 1),
        logprob=LOGPROB,
        top=st.lists(LOGPROB, max_size=5).map(tuple),
        rank=st.none() | st.integers(1, 2**32 - 1),
        text=st.text(max_size=5),
    ),
    max_size=8,
)


@given(TOKENS)
def test_a_score_comes_back_to_the_last_bit(tokens: list[TokenScore]) -> None:
    score = TextScore(tuple(tokens), 151936)
    assert unpack(pack(score), 151936) == score


def test_rows_of_earlier_versions_are_read() -> None:
    # 05 00 00 00 … as version 0.1 wrote it: count, ids, ranks, lengths, logprobs, top logprobs, and nothing after them.
    raw = struct.pack("<I2I2I2H2d3d", 2, 5, 7, 1, 0, 2, 1, -0.1, -9.0, -0.1, -3.0, -0.5)
    score = unpack(zstandard.ZstdCompressor().compress(raw), 512)
    assert score == TextScore((TokenScore(5, -0.1, (-0.1, -3.0), 1), TokenScore(7, -9.0, (-0.5,), None)), 512)
    assert zstandard.ZstdDecompressor().decompress(pack(score)) == raw, "tokens that spell nothing take no room"
    for more in (b"{", b"[1, 2]", b'["one"]', b"{}", b"\xff"):
        with pytest.raises(StoreError, match="cached score is damaged"):
            unpack(zstandard.ZstdCompressor().compress(raw + more), 512)


def test_the_cache_answers_only_for_the_same_question() -> None:
    score = TextScore((TokenScore(5, -0.1, (-0.1, -3.0), 1),), 512)
    key = score_key("llamacpp", "1", "toy", [1, 2], [5])
    with Store.memory() as store:
        assert store.score(key) is None
        for _ in range(2):
            store.save_score(key, score, scorer="llamacpp", version="1", weights="toy")
        assert store.score(key) == score
        store.clear_derived()
        assert store.score(key) == score
        store.clear_scores()
        assert store.score(key) is None
    others = {
        score_key("llamacpp", "2", "toy", [1, 2], [5]),
        score_key("llamacpp", "1", "toy@2", [1, 2], [5]),
        score_key("llamacpp", "1", "toy", [1], [2, 5]),
        score_key("vllm", "1", "toy", [1, 2], [5]),
    }
    assert len(others - {key}) == 4


def test_a_damaged_score_is_a_sentence() -> None:
    packed = pack(TextScore((TokenScore(5, -0.1, (-0.1,), 1),), 512))
    for damaged in (b"", packed[:-2], b"\x00" * 40):
        with pytest.raises(StoreError, match="cached score is damaged"):
            unpack(damaged, 512)
