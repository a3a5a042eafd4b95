import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from probe.wire.content import decode_body, decoded_body, header
from tests.kit import make_exchange

TEXT = "Hello – こんにちは. ".encode() * 2000


def raw_deflate(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return machine.compress(data) + machine.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("coding", ENCODERS)
def test_every_coding(coding: str) -> None:
    assert decode_body((("Content-Encoding", coding.upper()),), ENCODERS[coding](TEXT)) == (TEXT, None)


def test_raw_deflate() -> None:
    assert decode_body((("content-encoding", "deflate"),), raw_deflate(TEXT)) == (TEXT, None)


def test_codings_are_undone_in_reverse_order() -> None:
    body = zlib.compress(gzip.compress(TEXT))
    assert decode_body((("Content-Encoding", "gzip"), ("Content-Encoding", "deflate")), body).data == TEXT
    assert decode_body((("Content-Encoding", "gzip, identity, deflate"),), body).data == TEXT


def test_several_members_and_frames() -> None:
    assert (
        decode_body((("Content-Encoding", "gzip"),), gzip.compress(b"a") + gzip.compress(b"b") + b"\0\0").data == b"ab"
    )
    twice = zstandard.compress(b"a") + zstandard.compress(b"b")
    assert decode_body((("Content-Encoding", "zstd"),), twice).data == b"ab"


@pytest.mark.parametrize("coding", ENCODERS)
def test_a_cut_body_gives_its_beginning_and_a_problem(coding: str) -> None:
    noise = bytes(i * i % 251 for i in range(300_000))
    encoded = ENCODERS[coding](noise + TEXT)
    data, problem = decode_body((("Content-Encoding", coding),), encoded[: len(encoded) - 20])
    assert (noise + TEXT).startswith(data)
    assert problem is not None
    assert coding in problem


@pytest.mark.parametrize("coding", ENCODERS)
def test_a_bomb_is_bounded(coding: str) -> None:
    data, problem = decode_body((("Content-Encoding", coding),), ENCODERS[coding](bytes(30_000_000)), limit=100_000)
    assert len(data) == 100_000
    assert problem == f"the {coding} body is longer than 100000 bytes"


def test_unknown_and_excessive_codings_are_problems() -> None:
    assert decode_body((("Content-Encoding", "rot13"),), b"x") == (b"x", "unknown content coding 'rot13'")
    many = decode_body((("Content-Encoding", "gzip," * 5),), b"x")
    assert many == (b"x", "more than 4 content codings")


def test_an_empty_body_has_no_coding() -> None:
    assert decode_body((("Content-Encoding", "gzip"),), b"") == (b"", None)


@given(st.sampled_from([*ENCODERS, "identity", ""]), st.binary(max_size=200))
def test_never_raises(coding: str, body: bytes) -> None:
    data, problem = decode_body((("Content-Encoding", coding),), body)
    assert isinstance(data, bytes)
    assert problem is None or problem


def test_headers_are_joined_and_found_in_any_case() -> None:
    assert header((("X-A", "1"), ("x-a", "2")), "x-a") == "1, 2"
    assert header((), "x-a") == ""


def test_the_body_of_an_exchange() -> None:
    exchange = make_exchange(response_body=gzip.compress(b"x"), response_headers=(("Content-Encoding", "gzip"),))
    assert decoded_body(exchange) == (b"x", None)
