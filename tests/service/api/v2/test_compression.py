"""Compressed bodies: both forms, both ways, and never more memory than the limit."""

import gzip
import random
import tracemalloc
import zlib

import pytest

from service.api.v2.compression import packed, unpacked
from service.errors import BadRequest, NotAnImage, TooLarge

TEXT = b"residual " * 1000
FORMS = {b"gzip": gzip.compress(TEXT, mtime=0), b"deflate": zlib.compress(TEXT)}


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


def raw(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


MEMBERS = [gzip.compress(TEXT[start : start + 700], mtime=0) for start in range(0, len(TEXT), 700)]
FURTHER_FORMS = {
    "two members": (b"gzip", gzip.compress(TEXT[:5], mtime=0) + gzip.compress(TEXT[5:], mtime=0)),
    "many members, the last empty as bgzip writes it": (b"gzip", b"".join(MEMBERS) + gzip.compress(b"", mtime=0)),
    "a first member without content": (b"gzip", gzip.compress(b"", mtime=0) + gzip.compress(TEXT, mtime=0)),
    "zeros behind the last member": (b"gzip", gzip.compress(TEXT, mtime=0) + bytes(512)),
    "zeros behind several members": (b"x-gzip", b"".join(MEMBERS) + bytes(3)),
    "deflate without a zlib header": (b"deflate", raw(TEXT)),
}


@pytest.mark.parametrize("form", FURTHER_FORMS)
def test_members_padding_and_raw_deflate_are_unpacked_within_the_limit(form: str) -> None:
    encoding, body = FURTHER_FORMS[form]
    assert unpacked(body, encoding, len(TEXT)) == TEXT
    with pytest.raises(TooLarge):
        unpacked(body, encoding, len(TEXT) - 1)


def test_a_member_larger_than_a_piece_is_unpacked() -> None:
    content = random.Random(3).randbytes(100_000)
    assert unpacked(gzip.compress(b"a", mtime=0) + gzip.compress(content, mtime=0), b"gzip", 100_001) == b"a" + content


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", MEMBERS[0] + MEMBERS[1][:-3]),
        (b"gzip", MEMBERS[0] + b"more"),
        (b"gzip", MEMBERS[0] + bytes(3) + MEMBERS[1]),
        (b"gzip", MEMBERS[0] + MEMBERS[1][:-6] + b"\1\2" + MEMBERS[1][-4:]),
        (b"gzip", raw(TEXT)),
        (b"deflate", raw(TEXT)[:-3]),
        (b"deflate", raw(TEXT) + b"more"),
        (b"deflate", raw(TEXT) + raw(TEXT)),
        (b"deflate", zlib.compress(TEXT)[:-1] + b"\0"),
    ],
)
def test_what_is_broken_behind_a_good_beginning_is_refused(encoding: bytes, body: bytes) -> None:
    with pytest.raises(BadRequest):
        unpacked(body, encoding, 2 * len(TEXT))


def test_a_bomb_of_members_or_raw_deflate_is_refused_before_it_unfolds() -> None:
    zeros = bytes(1 << 20)
    for encoding, bomb in ((b"gzip", gzip.compress(zeros, mtime=0) * 100), (b"deflate", raw(bytes(100 << 20)))):
        tracemalloc.start()
        with pytest.raises(TooLarge):
            unpacked(bomb, encoding, 3 << 20)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 << 20


def test_a_flood_of_tiny_members_is_refused_after_a_few() -> None:
    with pytest.raises(BadRequest, match="tiny members"):
        unpacked(gzip.compress(b"", mtime=0) * 500_000, b"gzip", 1 << 26)
    with pytest.raises(BadRequest, match="tiny members"):
        unpacked(gzip.compress(b"a", mtime=0) * 500_000, b"gzip", 1 << 26)


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
