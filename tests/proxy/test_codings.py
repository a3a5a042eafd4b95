"""Secrets inside compressed bodies."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from probe.proxy.codings import clean_body
from probe.proxy.redact import Redactor
from probe.wire.values import HeaderPairs

KEY = "sk-or-v1-0123456789abcdef"
REDACTOR = Redactor.of([KEY])
BLOT = b"*" * len(KEY)


def said(coding: str) -> HeaderPairs:
    return (("Content-Type", "text/plain"), ("content-ENCODING", coding))


def bare_deflate(content: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(content) + engine.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress, gzip.decompress),
    "x-gzip": ("X-GZip", gzip.compress, gzip.decompress),
    "zlib": ("deflate", zlib.compress, zlib.decompress),
    "bare deflate": ("deflate", bare_deflate, zlib.decompress),
    "br": ("br", brotli.compress, brotli.decompress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress, lambda data: zstandard.ZstdDecompressor().decompress(data)),
    "two": (
        "gzip, br",
        lambda data: brotli.compress(gzip.compress(data)),
        lambda data: gzip.decompress(brotli.decompress(data)),
    ),
}


@pytest.mark.parametrize("name", CODINGS)
@given(content=st.binary(max_size=300))
def test_a_body_without_a_secret_stays_as_it_crossed(name: str, content: bytes) -> None:
    coding, pack, _ = CODINGS[name]
    body = pack(content)
    assert clean_body(REDACTOR, said(coding), body) == (body, 0)


@pytest.mark.parametrize("name", CODINGS)
@given(before=st.binary(max_size=300), after=st.binary(max_size=300))
def test_a_secret_in_a_body_is_blotted_out(name: str, before: bytes, after: bytes) -> None:
    coding, pack, unpack = CODINGS[name]
    clean, count = clean_body(REDACTOR, said(coding), pack(before + KEY.encode() + after))
    assert unpack(clean) == before + BLOT + after
    assert count == 1


def test_a_secret_far_inside_a_large_body_is_found() -> None:
    content = b"data: x\n\n" * 100_000 + KEY.encode() + b"y" * 1_000_000
    clean, count = clean_body(REDACTOR, said("gzip"), gzip.compress(content))
    assert gzip.decompress(clean) == content.replace(KEY.encode(), BLOT)
    assert count == 1


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_secret_in_a_later_member_is_found(name: str) -> None:
    coding, pack, unpack = CODINGS[name]
    clean, count = clean_body(REDACTOR, said(coding), pack(b"first ") + pack(b"second " + KEY.encode()))
    assert unpack(clean) == b"first second " + BLOT
    assert count == 1


@pytest.mark.parametrize("name", ["gzip", "zlib", "bare deflate", "br", "zstd"])
def test_a_secret_in_a_body_that_was_cut_is_found(name: str) -> None:
    coding, pack, unpack = CODINGS[name]
    # What does not compress follows the key, so that the key is in the part that arrived.
    body = pack(KEY.encode() + bytes(i * i % 251 for i in range(200_000)))
    if name == "zstd":
        engine = zstandard.ZstdCompressor().compressobj()
        body = engine.compress(KEY.encode()) + engine.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + b"more"
    cut = body[: len(body) - 2]
    clean, count = clean_body(REDACTOR, said(coding), cut)
    assert count == 1
    assert unpack(clean).startswith(BLOT)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity", "compress", "nonsense", ""])
def test_a_body_that_is_not_what_it_says_is_searched_as_it_is(coding: str) -> None:
    body = b'{"error": "bad key ' + KEY.encode() + b'"}'
    assert clean_body(REDACTOR, said(coding), body) == (body.replace(KEY.encode(), BLOT), 1)


def test_a_plain_body_keeps_its_length() -> None:
    assert clean_body(REDACTOR, (), KEY.encode() * 2) == (BLOT * 2, 2)
    assert clean_body(REDACTOR, said("gzip"), b"") == (b"", 0)


def test_without_secrets_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probe.proxy.codings.decode_body", None)
    assert clean_body(Redactor(), said("gzip"), b"body") == (b"body", 0)
