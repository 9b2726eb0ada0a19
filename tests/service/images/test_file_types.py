"""What is no JPEG, PNG or WebP: each refusal says what came and what to do."""

import base64
import gzip
import io
import struct
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image

from service.errors import BadImage, NotAnImage, ServiceError
from service.images.header import read_header
from service.images.preprocessing import decode
from tests.service.api.endpoints.test_classify import assert_problem
from tests.support.image_files.hostile_images import jpeg_of_scans, scan
from tests.support.image_files.images import encoded, images, scene

JPEG, PNG = encoded(scene(200, 150), "JPEG"), encoded(scene(200, 150), "PNG")


def media(*brands: bytes) -> bytes:
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return struct.pack(">I", 4 + len(body)) + body + bytes(100)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", JPEG)
    return file.getvalue()


FILES = {
    "gif": (encoded(scene(), "GIF"), "a GIF file", "save one frame"),
    "bmp": (encoded(scene(), "BMP"), "a BMP file", "convert it to JPEG"),
    "tiff": (encoded(scene(), "TIFF"), "a TIFF file", "convert it to JPEG"),
    "big-endian tiff": (b"MM\x00*" + bytes(50), "a TIFF file", "convert it"),
    "ico": (encoded(scene(), "ICO", bitmap_format="bmp"), "an icon", "save one frame"),
    "jpeg 2000": (encoded(scene(), "JPEG2000"), "a JPEG 2000 file", "convert it"),
    "jpeg 2000 codestream": (b"\xff\x4f\xff\x51" + bytes(50), "a JPEG 2000 file", "convert it"),
    "jpeg xl": (b"\xff\x0a" + bytes(50), "a JPEG XL file", "convert it"),
    "jpeg xl box": (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50), "a JPEG XL file", "convert it"),
    "avif": (encoded(scene(), "AVIF"), "an AVIF file", "convert it"),
    "avif of a general brand": (media(b"mif1", b"mif1", b"avif", b"miaf"), "an AVIF file", "convert it"),
    "heic": (media(b"heic", b"mif1", b"heic"), "a HEIC file", "heif-convert"),
    "heic of a general brand": (media(b"mif1", b"mif1", b"heic"), "a HEIC file", "convert it"),
    "heif": (media(b"mif1", b"mif1", b"miaf"), "a HEIC file", "convert it"),
    "mp4": (media(b"isom", b"isom", b"avc1", b"mp41"), "an MP4 video", "save one frame"),
    "mov": (media(b"qt  ", b"qt  "), "a QuickTime video", "save one frame"),
    "old mov": (b"\x00\x00\x00\x08wide\x00\x00\x10\x00mdat" + bytes(50), "a QuickTime video", "save one frame"),
    "avi": (b"RIFF\x00\x10\x00\x00AVI LIST" + bytes(50), "an AVI video", "save one frame"),
    "webm": (b"\x1aE\xdf\xa3" + bytes(50), "a Matroska or WebM video", "save one frame"),
    "psd": (b"8BPS\x00\x01" + bytes(50), "a Photoshop file", "convert it"),
    "dicom": (bytes(128) + b"DICM" + bytes(50), "a DICOM file", "convert it"),
    "pnm": (encoded(scene(), "PPM"), "a Netpbm file", "convert it"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(50), "a NumPy array", "save an image"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(50), "a PDF file", "convert a page"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing", "rsvg-convert"),
    "bare svg": (b"\xef\xbb\xbf<svg width='1'/>", "an SVG drawing", "draw it as PNG"),
    "html": (b"<!doctype html><title>404</title>", "an HTML page", "download the image"),
    "zip": (zipped(), "a ZIP archive", "unpack it"),
    "gzip": (gzip.compress(JPEG), "a gzip file", "unpack it"),
    "tar": (b"a.jpg" + bytes(252) + b"ustar\x0000" + bytes(240), "a tar archive", "unpack it"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "png without line ends": (PNG.replace(b"\n", b"").replace(b"\r", b""), "a PNG file whose line ends", "unchanged"),
    "png with unix line ends": (PNG.replace(b"\r\n", b"\n"), "a PNG file whose line ends", "unchanged"),
    "jpeg as text": (JPEG.decode("latin-1").encode(), "an image that was read as text", "as bytes"),
    "jpeg as replaced text": (JPEG.decode("utf-8", "replace").encode(), "an image that was read as text", "as bytes"),
    "png as text": (PNG.decode("latin-1").encode(), "an image that was read as text", "as bytes"),
    "json": (b'{"url": "https://example.org/a.jpg"}', "JSON", "the bytes of the file"),
    "base64": (base64.b64encode(JPEG), "an image written as text", "decode it"),
    "base64 of a png": (base64.b64encode(PNG), "an image written as text", "decode it"),
    "data url": (b"data:image/png;base64," + base64.b64encode(PNG), "a data URL", "decode it"),
    "hexadecimal": (JPEG.hex().encode(), "an image written as text", "decode it"),
    "address": (b"https://example.org/cats/a.jpg?size=2", "a URL", "download the image"),
    "blanks": (b" \r\n \n", "empty", "check the file"),
    "text": (b"Dear Sir or Madam,\nplease find attached", "text", "the bytes of the file"),
}
SENT = {
    "file name": (b"photo.jpg", "the name of a file, not its content", "put an @ before it"),
    "path": (b"/home/me/My Photos/IMG_1234.HEIC\n", "the name of a file, not its content", "put an @ before it"),
    "name with an @": (b"@photo.jpg", "the name of a file, not its content", "put an @ before it"),
    "name in Windows": (rb"C:\photos\a.png", "the name of a file", "put an @ before it"),
    "form": (b"file=@photo.jpg", "a URL-encoded form", "-F file=@photo.jpg"),
    "python's bytes": (repr(JPEG).encode(), "the name of an object", "send its bytes"),
    "javascript's object": (b"[object Object]", "JSON", "the bytes of the file"),
    "form without its type": (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n',
        "a form without its Content-Type",
        "with the boundary",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_stored_file_is_named_by_its_kind(name: str) -> None:
    content, what, advice = FILES[name]
    with pytest.raises(NotAnImage) as refused:
        read_header(content)
    assert refused.value.message.startswith(f"Only JPEG, PNG and WebP images are accepted, and this is {what}")
    assert advice in refused.value.message and refused.value.message.endswith(".")
    assert "/classify" not in refused.value.message and "curl" not in refused.value.message.replace("with curl by", "")


@pytest.mark.anyio
@pytest.mark.parametrize("name", [*FILES, *SENT])
async def test_a_client_hears_what_it_sent_and_what_to_do(client: httpx.AsyncClient, name: str) -> None:
    content, what, advice = (FILES | SENT)[name]
    answers = [await client.post("/classify", content=content), await client.post("/classify", files={"file": content})]
    for answer in answers:
        assert_problem(answer, 415, "not_an_image")
        assert f"this is {what}" in answer.json()["detail"] and advice in answer.json()["detail"]


@pytest.mark.anyio
async def test_no_refusal_repeats_what_came(client: httpx.AsyncClient) -> None:
    for content in (
        b"secret-name.jpg",
        b"https://secret.example/secret.jpg",
        b'{"secret": 1}',
        b"secret words",
        b"<secret/>",
    ):
        assert "secret" not in (await client.post("/classify", content=content)).text


@pytest.mark.anyio
async def test_a_form_whose_file_lacks_its_at_sign_is_told_so(client: httpx.AsyncClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nphoto.jpg\r\n--x--\r\n'
    answer = await client.post("/classify", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert_problem(answer, 415, "not_an_image")
    assert "put an @ before it, with curl as in -F file=@photo.jpg" in answer.json()["detail"]


@pytest.mark.parametrize(
    "data", [b"\x00" * 40, b"\x01\x02\x03\x04" * 30, b"\x80\x81" * 40, b"\xff\xd8", bytes(range(256))]
)
def test_an_unknown_type_is_reported_as_unknown(data: bytes) -> None:
    with pytest.raises(NotAnImage, match="these bytes are not of any known file type"):
        read_header(data)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (0xC3, "a lossless JPEG file"),
        (0xC9, "an arithmetic-coded JPEG file"),
        (0xCA, "an arithmetic-coded JPEG file"),
        (0xCB, "a lossless JPEG file"),
        (0xC5, "a hierarchical JPEG file"),
        (0xF7, "a lossless JPEG file"),
    ],
)
def test_the_rarer_kinds_of_jpeg_are_named(frame: int, words: str) -> None:
    with pytest.raises(BadImage, match=f"This is {words}, which is not supported: save it again as a baseline JPEG"):
        read_header(jpeg_of_scans([scan()], frame=frame))


def test_a_jpeg_of_twelve_bits_is_named() -> None:
    data = jpeg_of_scans([scan()], frame=0xC1)
    at = data.index(b"\xff\xc1") + 4
    with pytest.raises(BadImage, match="12 bits a sample; save it again with 8"):
        read_header(data[:at] + b"\x0c" + data[at + 1 :])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_curl_took_bytes_from_is_told_so(image_format: str) -> None:
    data = encoded(scene(300, 200), image_format, quality=90)
    for removed in (b"\r\n", b"\r\n\x00"):
        with pytest.raises(ServiceError) as refused:
            decode(data.translate(None, removed))
        assert "--data-binary @" in refused.value.message and "instead" in refused.value.message


def test_a_broken_file_with_line_ends_is_just_broken() -> None:
    data = encoded(scene(300, 200), "JPEG")
    for broken in (data[: len(data) // 2], data[:300] + data[900:], images()["jpeg_one_pixel"].data[:-20]):
        with pytest.raises(BadImage) as refused:
            decode(broken)
        assert "line ends" not in refused.value.message


def test_every_refusal_is_fast_and_plain() -> None:
    dice = np.random.default_rng(3)
    for content, *_ in (FILES | SENT).values():
        for size in (1, 5, 12, 40, len(content)):
            for data in (content[:size], content[:size] + dice.bytes(2_000_000)):
                try:
                    decode(data)
                except ServiceError as error:
                    assert error.status in (415, 422) and "\n" not in error.message


def test_a_pillow_image_of_any_other_kind_is_refused_by_name() -> None:
    for kind in ("PCX", "SGI", "TGA", "DDS", "EPS"):
        with pytest.raises(NotAnImage):
            decode(encoded(Image.new("RGB", (8, 8)), kind))
