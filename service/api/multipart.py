"""Take the pictures out of a `multipart/form-data` body (RFC 7578, RFC 2046 section 5.1.1), whole in memory.

One search a part for the next boundary, so that no body costs more than a pass over its bytes: a parser that goes
character by character needs seconds for 20 MiB of almost-boundaries, on the event loop. By the RFC a boundary is one
wherever a line begins with it.
"""

import re
from collections.abc import Collection, Iterator

from service.errors import BadRequest

FILE_FIELDS = frozenset((b"file", b"image"))
MAX_PARTS = 128
MAX_HEAD_BYTES = 8192  # of one part
MAX_BOUNDARY_BYTES = 200  # the RFC says 70

_FORM = re.compile(rb"multipart/form-data[ \t]*", re.IGNORECASE)
_DISPOSITION = re.compile(rb"[ \t]*form-data[ \t]*", re.IGNORECASE)
# `; name="a value"` or `; name=token`.
_PARAMETER = re.compile(
    rb""";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|([^;" \t\r\n]*))[ \t]*"""
)
_LINE_END = re.compile(rb"[ \t]{0,64}\r\n")
# What nearly every client writes, so that it is read at once: the content type's boundary, a part's headers whole.
_USUAL_FORM = re.compile(rb"multipart/form-data; boundary=([0-9A-Za-z_-]{1,100})")
_USUAL_HEAD = re.compile(
    rb'\r\nContent-Disposition: form-data; name="([^"\\\r\n]{1,100})"(?:; filename="[^"\\\r\n]{0,1000}")?\r\n'
    rb"(?:Content-Type: [^\r\n]{0,100}\r\n)?\r\n"
)


def file_in_form(body: bytes, content_type: bytes) -> bytes:
    """Return the content of the form's one picture, which is the part named `file` or `image`.

    Raises BadRequest: `bad_multipart`, `no_file`, `several_files`.
    """
    pictures = files_in_form(body, content_type, FILE_FIELDS)
    picture = next(pictures, None)
    if picture is None:
        raise BadRequest("The form has no file: send the image in a field named file.", code="no_file")
    if next(pictures, None) is not None:
        raise BadRequest("The form has several files; send one image a request.", code="several_files")
    return picture


def files_in_form(body: bytes, content_type: bytes, fields: Collection[bytes]) -> Iterator[bytes]:
    """Yield the content of each part that has one of these names, in order. Raises BadRequest: `bad_multipart`."""
    delimiter = b"\r\n--" + _boundary(content_type)
    position = _after_first(delimiter, body)
    for _ in range(MAX_PARTS + 1):
        if body.startswith(b"--", position):
            return
        name, start = _read_head(body, position)
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise _bad_form("The form is cut off: its closing boundary is missing.")
        if name in fields:
            yield body[start:end]
        position = end + len(delimiter)
    raise _bad_form(f"The form has more than {MAX_PARTS} parts.")


def _boundary(content_type: bytes) -> bytes:
    usual = _USUAL_FORM.fullmatch(content_type)
    if usual is not None:
        return usual[1]
    form = _FORM.match(content_type)
    boundary = _parameters(content_type, form.end()).get(b"boundary") if form else None
    if not boundary or len(boundary) > MAX_BOUNDARY_BYTES:
        raise _bad_form("Only multipart/form-data with a boundary is accepted.")
    return boundary


def _after_first(delimiter: bytes, body: bytes) -> int:
    """The position after the first boundary, which may come without the line end before it."""
    if body.startswith(delimiter[2:]):
        return len(delimiter) - 2
    found = body.find(delimiter)
    if found < 0:
        raise _bad_form("The body does not have the boundary that its Content-Type names.")
    return found + len(delimiter)


def _read_head(body: bytes, position: int) -> tuple[bytes, int]:
    """The name of the part whose boundary ends at `position`, and where its content begins."""
    usual = _USUAL_HEAD.match(body, position)
    if usual is not None:
        return usual[1], usual.end()
    head_start, head_end = _find_head(body, position)
    return _name(body[head_start:head_end]), head_end + 4


def _find_head(body: bytes, position: int) -> tuple[int, int]:
    """Where a part's headers begin and where they end, before their empty line."""
    line = _LINE_END.match(body, position)
    if line is None:
        raise _bad_form("A boundary in the form is not at the end of its line.")
    end = body.find(b"\r\n\r\n", line.end() - 2, line.end() + MAX_HEAD_BYTES)
    if end < 0:
        raise _bad_form("A part of the form has no end to its headers.")
    return line.end(), end


def _name(head: bytes) -> bytes:
    for header in head.split(b"\r\n"):
        key, colon, value = header.partition(b":")
        if not colon:
            break
        disposition = _DISPOSITION.match(value) if key.strip().lower() == b"content-disposition" else None
        if disposition is not None:
            name = _parameters(value, disposition.end()).get(b"name")
            if name is not None:
                return name
    raise _bad_form("A part of the form has no name.")


def _parameters(value: bytes, position: int) -> dict[bytes, bytes]:
    """The parameters that begin at `position`, the first of each name; none of them if any is malformed."""
    parameters: dict[bytes, bytes] = {}
    while parameter := _PARAMETER.match(value, position):
        name, quoted, token = parameter.groups()
        parameters.setdefault(name.lower(), token if quoted is None else _unescaped(quoted))
        position = parameter.end()
    return parameters if position == len(value) else {}


def _unescaped(quoted: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", quoted) if b"\\" in quoted else quoted


def _bad_form(message: str) -> BadRequest:
    return BadRequest(message, code="bad_multipart")
