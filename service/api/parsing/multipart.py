"""A parser of `multipart/form-data` bodies in memory (RFC 7578, RFC 2046 section 5.1.1).

It searches once for the next boundary of each part, so that any body costs one pass over its bytes. A parser that reads
single characters needs seconds for 20 MiB of near-boundaries. By the RFC, a boundary counts at the beginning of any
line. Parameters are parsed as leniently as in Starlette, Werkzeug and Django.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from service.errors import BadRequest

FILE_FIELDS = frozenset((b"file", b"image", b"files", b"images"))  # and files[], file[0]
MAX_PARTS = 128
MAX_HEAD_BYTES = 8192  # of one part
MAX_BOUNDARY_BYTES = 200  # the RFC says 70
_LONGEST_VALUE = 1000  # of a field that is not a file
_MOST_PARAMETERS = 32  # of a header

_FORM = re.compile(rb"multipart/form-data[ \t]*(?=;|\Z)", re.IGNORECASE)
_DISPOSITION = re.compile(rb"[ \t]*form-data[ \t]*(?=;|\Z)", re.IGNORECASE)
# `; name="a value"`, in which a quotation mark ends nothing unless a semicolon or the end follows, or `; name=a value`.
_PARAMETER = re.compile(
    rb""";[ \t]*+([^=;" \t]++)[ \t]*+=[ \t]*+"""
    rb"""(?:"((?:[^"\\]|\\.)*+)"(?=[ \t]*(?:;|\Z))|"(.*?)"(?=[ \t]*(?:;|\Z))|([^";][^;]*+|(?=;|\Z)))"""
)
_FOLD = re.compile(rb"\r\n[ \t]+")
_LINE_END = re.compile(rb"[ \t]{0,64}\r\n")
# Fast paths for the usual form of the content type's boundary and of a part's headers.
_USUAL_FORM = re.compile(rb"multipart/form-data; boundary=([0-9A-Za-z_-]{1,100})")
_USUAL_HEAD = re.compile(
    rb'\r\nContent-Disposition: form-data; name="([^"\\\r\n]{1,100})"(?:; filename="[^"\\\r\n]{0,1000}")?\r\n'
    rb"(?:Content-Type: [^\r\n]{0,100}\r\n)?\r\n"
)


@dataclass(slots=True)
class Form:
    """The content of a form's files, in order, and the beginning of each other field."""

    files: list[bytes]
    fields: dict[str, str]

    def one_file(self) -> bytes:
        """Return the only file. Raises BadRequest: `no_file`, `several_files`."""
        if not self.files:
            raise BadRequest("The form has no file; send the image in a field named file.", code="no_file")
        if len(self.files) > 1:
            raise BadRequest("The form has several files; send one image a request.", code="several_files")
        return self.files[0]


def read_form(
    body: bytes, content_type: bytes, most_files: int = 1, file_fields: frozenset[bytes] = FILE_FIELDS
) -> Form:
    """Return the files and fields of a form, at most `most_files + 1` files, so that the caller can detect an excess.

    A file is a part whose name is in `file_fields`, with or without brackets. Raises BadRequest: `bad_multipart`.
    """
    form = Form([], {})
    for name, start, end in _parts(body, content_type):
        if name in file_fields or (name[-1:] == b"]" and name.partition(b"[")[0] in file_fields):
            if len(form.files) <= most_files:
                form.files.append(body[start:end])
        else:
            form.fields[name.decode(errors="replace")] = body[start : min(end, start + _LONGEST_VALUE)].decode(
                errors="replace"
            )
    return form


def _parts(body: bytes, content_type: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each part, and the start and end of its content."""
    delimiter = b"\r\n--" + _boundary(content_type)
    position = _after_first(delimiter, body)
    for _ in range(MAX_PARTS + 1):
        if body.startswith(b"--", position):
            return
        name, start = _read_head(body, position)
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise _bad_form("The form is truncated: its closing boundary is missing.")
        yield name, start, end
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
    """Return the position after the first boundary, which may lack the line end before it."""
    if body.startswith(delimiter[2:]):
        return len(delimiter) - 2
    found = body.find(delimiter)
    if found < 0:
        raise _bad_form("The body does not contain the boundary in its Content-Type.")
    return found + len(delimiter)


def _read_head(body: bytes, position: int) -> tuple[bytes, int]:
    """Return the name of the part whose boundary ends at `position`, and the start of its content."""
    usual = _USUAL_HEAD.match(body, position)
    if usual is not None:
        return usual[1], usual.end()
    head_start, head_end = _find_head(body, position)
    return _name(body[head_start:head_end]), head_end + 4


def _find_head(body: bytes, position: int) -> tuple[int, int]:
    """Return the start and the end of a part's headers, without the empty line."""
    line = _LINE_END.match(body, position)
    if line is None:
        raise _bad_form("A boundary in the form is not at the end of its line.")
    end = body.find(b"\r\n\r\n", line.end() - 2, line.end() + MAX_HEAD_BYTES)
    if end < 0:
        raise _bad_form("The headers of a part of the form do not end.")
    return line.end(), end


def _name(head: bytes) -> bytes:
    for header in _FOLD.sub(b" ", head).split(b"\r\n"):
        key, _, value = header.partition(b":")
        disposition = _DISPOSITION.match(value) if key.strip().lower() == b"content-disposition" else None
        if disposition is not None:
            name = _parameters(value, disposition.end()).get(b"name")
            if name is not None:
                return name
    raise _bad_form("A part of the form has no name.")


def _parameters(value: bytes, position: int) -> dict[bytes, bytes]:
    """Return the parameters from `position` on, the first one of each name; invalid ones are skipped."""
    parameters: dict[bytes, bytes] = {}
    for parameter in islice(_PARAMETER.finditer(value, position), _MOST_PARAMETERS):
        name, quoted, loosely_quoted, token = parameter.groups()
        if quoted is not None:
            token = _unescaped(quoted)
        parameters.setdefault(name.lower(), (loosely_quoted if token is None else token.rstrip(b" \t")))
    return parameters


def _unescaped(quoted: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", quoted) if b"\\" in quoted else quoted


def _bad_form(message: str) -> BadRequest:
    return BadRequest(message, code="bad_multipart")
