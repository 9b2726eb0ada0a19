"""Compressed bodies: both forms, both ways, and never more memory than the limit."""

import gzip
import tracemalloc
import zlib

import pytest

from service.api.compression import packed, unpacked
from service.errors import BadRequest, NotAnImage, TooLarge

TEXT = b"residual " * 1000
FORMS = {b"gzip": gzip.compress(TEXT), b"deflate": zlib.compress(TEXT)}


@pytest.mark.parametrize("encoding", FORMS)
def test_a_body_is_what_it_was_before_packing(encoding: bytes) -> None:
    assert unpacked(FORMS[encoding], encoding, len(TEXT)) == TEXT
    assert unpacked(FORMS[encoding], b" " + encoding.upper(), len(TEXT)) == TEXT
    assert unpacked(TEXT, b"identity", 1) == TEXT


@pytest.mark.parametrize("encoding", FORMS)
def test_a_bomb_is_refused_before_it_unfolds(encoding: bytes) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == b"gzip" else 15)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(100)]) + packer.flush()
    tracemalloc.start()
    with pytest.raises(TooLarge):
        unpacked(bomb, encoding, 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("encoding", FORMS)
def test_broken_data_is_refused(encoding: bytes) -> None:
    for broken in (FORMS[encoding][:-3], FORMS[encoding] + b"more", b"", b"not packed", FORMS[encoding][:1]):
        with pytest.raises(BadRequest):
            unpacked(broken, encoding, len(TEXT))


def test_an_unknown_encoding_is_named_as_that() -> None:
    with pytest.raises(NotAnImage, match="gzip, deflate"):
        unpacked(TEXT, b"br", len(TEXT))


def test_gzip_has_an_old_name() -> None:
    assert unpacked(FORMS[b"gzip"], b"x-gzip", len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (b"gzip", b"gzip"),
        (b"deflate, gzip", b"gzip"),
        (b"gzip;q=0.1, deflate;q=0.9", b"deflate"),
        (b"identity;q=1, gzip;q=0.5", None),
        (b"gzip;q=0.000", None),
        (b"*", b"gzip"),
        (b"br, *;q=0", None),
        (b"br;q=1.0, GZIP;q=0.5", b"gzip"),
        (b"gzip;q=0, deflate", b"deflate"),
        (b"gzip; q=0", None),
        (b"identity", None),
        (b"", None),
    ],
)
def test_an_answer_is_packed_as_its_client_accepts_it(accepted: bytes, encoding: bytes | None) -> None:
    body, name = packed(TEXT, accepted)
    assert name == encoding
    assert unpacked(body, encoding or b"", len(TEXT)) == TEXT
    assert len(body) < len(TEXT) or encoding is None


def test_a_small_answer_is_packed_too_if_its_client_asks() -> None:
    body, encoding = packed(b"{}", b"gzip")
    assert (encoding, gzip.decompress(body)) == (b"gzip", b"{}")
