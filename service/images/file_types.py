"""Identification of files that are not JPEG, PNG or WebP by their first bytes, with advice for the error message.

It runs only after a file was rejected, so it costs no time for valid images. No message repeats content of the file.
"""

import codecs
import re

LINE_ENDS_LOST = (
    "The file is broken and contains no byte 10 or 13 (line ends), which curl -d removes: "
    "send it unchanged, with curl by --data-binary @photo.jpg instead of -d @photo.jpg."
)
_ACCEPTED = "Only JPEG, PNG and WebP images are accepted"
_MIN_BYTES_WITH_LINE_ENDS = 700  # a file of this size lacks both bytes by chance with a probability of 1/250

_CONVERT = "convert it to JPEG, for example with `magick in.{0} out.jpg`"
_FRAME = "save one frame of it as JPEG or PNG, for example with `magick 'in.{0}[0]' out.png`"
_VIDEO = "save one frame of it as JPEG, for example with `ffmpeg -i in.{0} -frames:v 1 out.jpg`"
_HEIC = "convert it to JPEG, for example with `magick in.heic out.jpg` or `heif-convert in.heic out.jpg`"
_PAGE = "convert a page of it to JPEG, for example with `pdftoppm -jpeg -r 150 -f 1 -l 1 in.pdf out`"
_DRAWING = "draw it as PNG, for example with `rsvg-convert in.svg > out.png`"
_UNPACK = "unpack it and send the images in it"
_RENDER = "save an image of it as JPEG or PNG"

# First bytes, type of file, advice.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"GIF87a", "a GIF file", _FRAME.format("gif")),
    (b"GIF89a", "a GIF file", _FRAME.format("gif")),
    (b"II*\x00\x10\x00\x00\x00CR", "a camera's raw file", _RENDER),
    (b"IIRO", "a camera's raw file", _RENDER),
    (b"IIU\x00", "a camera's raw file", _RENDER),
    (b"FUJIFILMCCD-RAW", "a camera's raw file", _RENDER),
    (b"II*\x00", "a TIFF file", _CONVERT.format("tif")),
    (b"MM\x00*", "a TIFF file", _CONVERT.format("tif")),
    (b"II+\x00", "a TIFF file", _CONVERT.format("tif")),
    (b"MM\x00+", "a TIFF file", _CONVERT.format("tif")),
    (b"P1\n", "a Netpbm file", _CONVERT.format("pbm")),
    (b"P2\n", "a Netpbm file", _CONVERT.format("pgm")),
    (b"P3\n", "a Netpbm file", _CONVERT.format("ppm")),
    (b"P4\n", "a Netpbm file", _CONVERT.format("pbm")),
    (b"P5\n", "a Netpbm file", _CONVERT.format("pgm")),
    (b"P6\n", "a Netpbm file", _CONVERT.format("ppm")),
    (b"P7\n", "a Netpbm file", _CONVERT.format("pam")),
    (b"II\xbc", "a JPEG XR file", _CONVERT.format("jxr")),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL file", _CONVERT.format("jxl")),
    (b"\xff\x0a", "a JPEG XL file", _CONVERT.format("jxl")),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file", _CONVERT.format("jp2")),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file", _CONVERT.format("j2k")),
    (b"\x00\x00\x01\x00", "an icon (ICO)", _FRAME.format("ico")),
    (b"\x00\x00\x02\x00", "a cursor (CUR)", _FRAME.format("cur")),
    (b"icns", "an icon (ICNS)", _FRAME.format("icns")),
    (b"8BPS", "a Photoshop file", _CONVERT.format("psd")),
    (b"gimp xcf", "a GIMP file", _RENDER),
    (b"qoif", "a QOI file", _CONVERT.format("qoi")),
    (b"\x76\x2f\x31\x01", "an OpenEXR file", _CONVERT.format("exr")),
    (b"#?RADIANCE", "a Radiance HDR file", _CONVERT.format("hdr")),
    (b"DDS ", "a DDS file", _CONVERT.format("dds")),
    (b"SIMPLE  =", "a FITS file", _CONVERT.format("fits")),
    (b"BPG\xfb", "a BPG file", _RENDER),
    (b"FLIF", "a FLIF file", _RENDER),
    (b"\x93NUMPY", "a NumPy array", _RENDER),
    (b"\x89HDF", "an HDF5 file", _RENDER),
    (b"%PDF-", "a PDF file", _PAGE),
    (b"%!PS", "a PostScript file", _RENDER),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file", _RENDER),
    (b"\xd0\xcf\x11\xe0", "an Office document", _RENDER),
    (b"{\\rtf", "an RTF document", _RENDER),
    (b"PK\x03\x04", "a ZIP archive, or a document that is one", _UNPACK),
    (b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", _VIDEO.format("mkv")),
    (b"FLV\x01", "a Flash video", _VIDEO.format("flv")),
    (b"\x00\x00\x01\xba", "an MPEG video", _VIDEO.format("mpg")),
    (b"\x00\x00\x01\xb3", "an MPEG video", _VIDEO.format("mpg")),
    (b"OggS", "an Ogg file", _VIDEO.format("ogv")),
    (b"ID3", "an MP3 file", "send an image"),
    (b"fLaC", "a FLAC file", "send an image"),
    (b"\x7fELF", "a program", "send an image"),
    (b"MZ", "a program", "send an image"),
    (b"SQLite format 3", "a database", "send an image"),
    (b"bplist00", "a property list", "send an image"),
)
_BRANDS = {  # of ISO base media files, at byte 8
    **dict.fromkeys((b"avif", b"avis"), ("an AVIF file", _CONVERT.format("avif"))),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif"), ("a HEIC file", _HEIC)
    ),
    b"crx ": ("a camera's raw file", _RENDER),
    b"jp2 ": ("a JPEG 2000 file", _CONVERT.format("jp2")),
    b"qt  ": ("a QuickTime video (MOV)", _VIDEO.format("mov")),
}
_ANY_HEIF = frozenset((b"mif1", b"mif2", b"msf1"))
_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"))  # all but the first: old QuickTime files
_RIFF = {
    b"AVI ": ("an AVI video", _VIDEO.format("avi")),
    b"WAVE": ("a WAV file", "send an image"),
    b"ACON": ("an animated cursor", _FRAME.format("ani")),
}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_PATTERNS: tuple[tuple[re.Pattern[bytes], tuple[str, str]], ...] = (
    (re.compile(rb"BM.{4}\x00{4}", re.DOTALL), ("a BMP file", _CONVERT.format("bmp"))),
    (re.compile(rb".{128}DICM", re.DOTALL), ("a DICOM file", _CONVERT.format("dcm"))),
    (re.compile(rb".{257}ustar", re.DOTALL), ("a tar archive", _UNPACK)),
)
_MANGLED_PNG = (b"\x89PNG\n", b"\x89PNG\x1a", b"\x89PNG\r\n\x1a\r", b"\x89PNG\r\r")
_AS_TEXT = (  # the first bytes of a JPEG and of a PNG, read as text and written as UTF-8
    b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
    b"\xc3\xbf\xc3\x98\xc3\xbf",
    b"\xef\xbf\xbdPNG",
    b"\xc2\x89PNG",
    b"\xe2\x80\xb0PNG",
)
_LINE_ENDS_ADVICE = "send or copy it unchanged, with curl by --data-binary @file instead of -d @file"
_BASE64 = (b"/9j/", b"iVBORw0KGgo", b"UklGR", b"R0lGOD", b"_9j_")
_HEXADECIMAL = (b"ffd8ff", b"89504e470d0a1a0a")
_WRITTEN_OUT = (b"b'", b'b"', b"<_io.", b"<PIL.", b"[object ", b"<Buffer", b"undefined", b"null", b"None")
_ADDRESS = re.compile(rb"(?:https?|ftps?|file|s3|gs|blob|content)://?[^\s]+|(?:blob:|www\.)[^\s]+", re.IGNORECASE)
_FILE_NAME = re.compile(rb"[^\r\n<>{}|\x00-\x1f]{0,1000}[^\r\n<>{}|\x00-\x1f/\\]\.[A-Za-z0-9]{2,5}|@[^\r\n]{1,1000}")
_MARKUP = re.compile(rb"<!--|<!DOCTYPE|<\?xml|<[A-Za-z]", re.IGNORECASE)
_SVG = re.compile(rb"<svg[\s>:]", re.IGNORECASE)
_HTML = re.compile(rb"<(?:!DOCTYPE\s+html|html|head|body)[\s>]", re.IGNORECASE)
_FORM_PART = re.compile(rb"\s*--[^\r\n]{1,200}\r?\nContent-", re.IGNORECASE)
_FORM_FIELD = re.compile(rb"(?:file|image|files|images)(?:%5B%5D|\[\])?=", re.IGNORECASE)
_BATCH = ", or JSON with base64 to /classify/batch"
_AT = "; with curl, a file's name takes an @ before it, as in -F file=@photo.jpg"
_BEGINNING_BYTES = 2048  # examined to classify a text


def describe_file(data: bytes, *, is_sent: bool) -> str:
    """Return an error message for a file that is not JPEG, PNG or WebP: its type, and advice.

    `is_sent`: the file comes from a request, so the advice is about sending images.
    """
    found = _binary(data) or _text(data, is_sent=is_sent)
    if found is None:
        return f"{_ACCEPTED}, and these bytes are not of any known file type."
    what, advice = found
    return f"{_ACCEPTED}, and this is {what}: {advice}."


def has_lost_line_ends(data: bytes) -> bool:
    """Return whether a broken file has probably lost its line ends, which `curl -d @file` removes."""
    return len(data) >= _MIN_BYTES_WITH_LINE_ENDS and b"\n" not in data and b"\r" not in data


def _binary(data: bytes) -> tuple[str, str] | None:
    found = next(((what, advice) for beginning, what, advice in _BEGINNINGS if data.startswith(beginning)), None)
    if found is not None:
        return found
    if data[4:8] in _BOXES:
        return _media(data)
    if data.startswith(b"RIFF") and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    return next((known for pattern, known in _PATTERNS if pattern.match(data)), None) or _damaged(data)


def _damaged(data: bytes) -> tuple[str, str] | None:
    if data.startswith(_MANGLED_PNG):
        return "a PNG file whose line ends were changed in transit", _LINE_ENDS_ADVICE
    if data.startswith(b"RIFF") and b"WEBPVP8" in data[:15]:
        return "a WebP file that lost bytes in transit", _LINE_ENDS_ADVICE
    if data.startswith(_AS_TEXT):
        return "an image that was read as text and so damaged", "read and send the file as bytes"
    return None


def _media(data: bytes) -> tuple[str, str]:
    """Return the type of an ISO base media file and advice, by its major brand, then by its compatible brands."""
    if data[4:8] != b"ftyp":
        return _BRANDS[b"qt  "]
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(64, int.from_bytes(data[:4])), 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    return _BRANDS[b"heif"] if _ANY_HEIF.intersection(brands) else ("an MP4 video", _VIDEO.format("mp4"))


def _text(data: bytes, *, is_sent: bool) -> tuple[str, str] | None:
    start = data[:_BEGINNING_BYTES].removeprefix(b"\xef\xbb\xbf").strip()
    if not start:
        return "empty or only white space", "check the file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the file", "fetch the file with `git lfs pull`"
    if _MARKUP.match(start):
        return _markup(start)
    if not _is_text(start):
        return None
    if _FORM_PART.match(start):
        return "a form without its Content-Type", "let the client set Content-Type with the boundary; do not write it"
    return _words(start, len(data), is_sent=is_sent)


def _markup(start: bytes) -> tuple[str, str]:
    if _SVG.search(start):
        return "an SVG drawing", _DRAWING
    if _HTML.search(start):
        return "an HTML page", "download the image itself"
    return "an XML or HTML text", "send an image"


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the end may be within a character
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(start) is None


def _words(start: bytes, size: int, *, is_sent: bool) -> tuple[str, str]:
    as_bytes = "send the bytes of the file" if is_sent else "store the bytes of the file"
    if start.startswith((b"{", b"[", b'"')):
        return "JSON", as_bytes + _BATCH * is_sent
    if start[:5].lower() == b"data:" or start.startswith(_BASE64) or start[:16].lower().startswith(_HEXADECIMAL):
        what = "a data URL" if start[:5].lower() == b"data:" else "an image written as text (base64 or hexadecimal)"
        return what, f"decode it and {as_bytes}" + _BATCH * is_sent
    if _ADDRESS.fullmatch(start):
        return "a URL, which the server does not fetch", f"download the image and {as_bytes}"
    return (_client_mistake(start, size) if is_sent else None) or ("text", as_bytes + _AT * is_sent)


def _client_mistake(start: bytes, size: int) -> tuple[str, str] | None:
    """Return the common mistake in a command or program that produces this text, and advice; None if unknown."""
    if _FORM_FIELD.match(start):
        return "a URL-encoded form", "send a multipart form, with curl by -F file=@photo.jpg, or the bytes of the file"
    if start.startswith(_WRITTEN_OUT):
        return "the name of an object, not its content", "read the file and send its bytes"
    if size <= _BEGINNING_BYTES and _FILE_NAME.fullmatch(start):
        return "the name of a file, not its content", "put an @ before it, with curl as in -F file=@photo.jpg"
    return None
