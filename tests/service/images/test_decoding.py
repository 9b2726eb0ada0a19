"""The short way of small ordinary PNGs: the pixels and the refusals of Pillow's reader."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.errors import BadImage
from service.images.decoding import decode_plain_png
from service.images.header import read_header
from service.images.preprocessing import decode


def noise(width: int, height: int, mode: str = "RGB", seed: int = 1) -> Image.Image:
    channels = len(mode)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(values if channels > 1 else values[:, :, 0], mode=None)


def png(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", **options)  # type: ignore[arg-type]
    return content.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def is_taken(content: bytes) -> bool:
    return decode_plain_png(read_header(content)) is not None


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (31, 7), (100, 120)])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_small_rgb_image_has_pillows_pixels(size: tuple[int, int], level: int) -> None:
    image = noise(*size)
    content = png(image, compress_level=level)
    assert is_taken(content)
    assert np.array_equal(np.asarray(decode(content)[0]), np.asarray(image))


def test_texts_and_profiles_of_the_file_change_nothing() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "text" * 100)
    content = png(noise(20, 20), pnginfo=info, icc_profile=b"profile")
    assert is_taken(content)


@pytest.mark.parametrize(
    "content",
    [
        png(noise(20, 20, "RGBA")),
        png(noise(20, 20, "L")),
        png(noise(20, 20).convert("P")),
        png(noise(20, 20), transparency=(1, 2, 3)),
        png(noise(300, 300)),
    ],
)
def test_other_images_are_left_to_pillow(content: bytes) -> None:
    assert not is_taken(content)
    assert decode(content)[0].mode == "RGB"


def test_an_image_in_several_chunks_is_left_to_pillow() -> None:
    image = noise(64, 64)
    content = png(image)
    start = content.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", content[start : start + 4])
    data = content[start + 8 : start + 8 + length]
    parts = b"".join(chunk(b"IDAT", data[at : at + 1000]) for at in range(0, length, 1000))
    content = content[:start] + parts + content[start + 12 + length :]
    assert not is_taken(content)
    assert np.array_equal(np.asarray(decode(content)[0]), np.asarray(image))


def with_data(data: bytes) -> bytes:
    content = png(noise(32, 32))
    start = content.index(b"IDAT") - 4
    return content[:start] + chunk(b"IDAT", data) + content[-12:]


@pytest.mark.parametrize(
    "content",
    [
        with_data(b""),
        with_data(b"\0" * 500),
        with_data(zlib.compress(bytes(100))),
        with_data(zlib.compress(b"\x09" * 5000)),
        png(noise(32, 32)).replace(b"\x08\x02\x00\x00\x00", b"\x08\x02\x00\x00\x00"[:4] + b"\x07", 1),
        png(noise(32, 32))[:29] + b"\0\0\0\0" + png(noise(32, 32))[33:],
    ],
)
def test_a_broken_image_is_refused_as_by_pillow(content: bytes) -> None:
    assert not is_taken(content)
    with pytest.raises(BadImage):
        decode(content)


def test_each_cut_and_each_changed_byte_is_answered_as_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = png(noise(12, 12, seed=3))
    variants = [whole[:end] for end in range(8, len(whole), 7)]
    variants += [whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1 :] for at in range(8, len(whole), 3)]

    def outcome(content: bytes) -> object:
        try:
            return np.asarray(decode(content)[0]).tobytes()
        except BadImage as error:
            return str(error)

    short = [outcome(content) for content in variants]
    monkeypatch.setattr("service.images.rgb_decoding.decode_plain_png", lambda _: None)
    assert short == [outcome(content) for content in variants]
