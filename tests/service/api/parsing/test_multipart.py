"""Taking the image out of a form: whatever the clients' libraries write, and whatever is thrown at it."""

import re
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.parsing.multipart import MAX_PARTS, read_form
from service.errors import BadRequest

MIB = 1024 * 1024
FORM = b"multipart/form-data; boundary=b"
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
OTHER = b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n'
END = b"\r\n--b--\r\n"


def file_in_form(body: bytes, content_type: bytes) -> bytes:
    return read_form(body, content_type).one_file()


def code_of(body: bytes, content_type: bytes = FORM) -> str:
    with pytest.raises(BadRequest) as refusal:
        file_in_form(body, content_type)
    return refusal.value.code


@given(content=st.binary(), filename=st.text(st.characters(exclude_categories=["Cs"])), value=st.binary())
def test_what_httpx_writes_is_read_back(content: bytes, filename: str, value: bytes) -> None:
    files = {"before": ("b", value), "file": (filename, content), "after": ("a", value)}
    request = httpx.Request("POST", "http://a", files=files)
    assert file_in_form(request.read(), request.headers["content-type"].encode()) == content


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b'multipart/form-data; charset=utf-8; boundary="=_x (1): y?"', b"=_x (1): y?"),
        (
            b"Multipart/Form-Data;BOUNDARY=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        (b"multipart/form-data ; boundary='()+_,-./:=?' ", b"'()+_,-./:=?'"),
    ],
)
def test_a_boundary_may_have_all_its_characters(content_type: bytes, boundary: bytes) -> None:
    body = (HEAD + b"image" + END).replace(b"--b", b"--" + boundary)
    assert file_in_form(body, content_type) == b"image"


@given(body=st.binary(max_size=200), content_type=st.binary(max_size=60))
def test_random_bytes_are_refused_in_our_own_words(body: bytes, content_type: bytes) -> None:
    assert code_of(body, content_type) == "bad_multipart"


@given(st.data())
def test_a_damaged_form_gives_an_image_or_a_refusal(data: st.DataObject) -> None:
    whole = OTHER + b"\r\n" + HEAD + b"image" + END
    at = data.draw(st.integers(0, len(whole)))
    damaged = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 4)) :]
    try:
        assert isinstance(file_in_form(damaged, FORM), bytes)
    except BadRequest as refusal:
        assert refusal.code in ("bad_multipart", "no_file", "several_files")


@pytest.mark.parametrize("cut", range(1, len(HEAD + b"image" + END) - 2))
def test_a_form_that_is_cut_off_anywhere_is_refused(cut: int) -> None:
    assert code_of((HEAD + b"image" + END)[: -cut - 2]) == "bad_multipart"


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="file"',
        b"form-data; name=file",
        b'Form-Data ; NAME="file" ; filename="x"',
        b'form-data; filename="a; name=\\"other\\""; name="file"',
        b"form-data; filename*=UTF-8''x; name=file",
        b'form-data; name="fi\\le"',
        b'form-data; name="file"; name="other"',
    ],
)
def test_the_name_is_found_however_it_is_written(disposition: bytes) -> None:
    body = b"--b\r\nA: b\r\ncontent-DISPOSITION:" + disposition + b"\r\nContent-Type: x/y\r\n\r\nimage" + END
    assert file_in_form(body, FORM) == b"image"


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="file"; filename="a.jpg";',
        b'form-data; name="file" ; ; filename="a.jpg" ; ',
        b"form-data; name=file;",
        b'form-data; filename="a"b".jpg"; name="file"',
        b'form-data; filename="a;b"c.jpg"; name="file"',
        b'form-data; filename="C:\\photos\\"; name="file"',
        b'form-data; filename="C:\\a.jpg"; name="file"',
        b'form-data; name="file"; filename="C:\\photos\\"',
        b"form-data; filename=my photo.jpg; name=file",
        b'form-data; filename; name="file"',
        b'form-data; filename=; name = "file"',
        b'form-data; filename="a.jpg; name=file',
        b'form-data;\r\n name="file";\r\n\tfilename="a.jpg"',
        b'form-data; name="file"; filename="\xe4.jpg"; filename*=UTF-8\'\'%C3%A4.jpg;',
    ],
)
def test_parameters_are_read_as_loosely_as_by_the_frameworks(disposition: bytes) -> None:
    body = b"--b\r\nno header\r\nContent-Disposition: " + disposition + b"\r\n\r\nimage" + END
    assert file_in_form(body, FORM) == b"image"


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data; boundary=b;",
        b"multipart/form-data;boundary=b ; ",
        b'multipart/form-data; boundary="b";',
        b"multipart/form-data;; boundary=b; charset=utf-8;",
        b"multipart/form-data; charset; boundary = b",
    ],
)
def test_the_content_type_may_end_with_a_semicolon(content_type: bytes) -> None:
    assert file_in_form(HEAD + b"image" + END, content_type) == b"image"


@pytest.mark.parametrize("field", ["file", "image", "files", "images"])
@pytest.mark.parametrize("suffix", ["", "[]", "[0]", "[a]"])
def test_files_may_be_named_as_lists(field: str, suffix: str) -> None:
    head = HEAD.replace(b'"file"', f'"{field}{suffix}"'.encode())
    assert file_in_form(head + b"image" + END, FORM) == b"image"
    twice = head + b"a\r\n" + head + b"b" + END
    assert code_of(twice) == "several_files"
    assert read_form(twice, FORM, 2).files == [b"a", b"b"]


def test_other_fields_come_with_the_files_as_text() -> None:
    fields = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % part
        for part in ((b"top_k", b"2"), ("größe".encode(), b"\xff"), (b"long", b"x" * 5000), (b"a[]", b""))
    )
    form = read_form(fields + HEAD + b"image" + END, FORM)
    assert form.files == [b"image"]
    assert form.fields == {"top_k": "2", "größe": "\ufffd", "long": "x" * 1000, "a[]": ""}


@pytest.mark.parametrize(
    "disposition", [b"attachment; name=file", b"form-data", b"form-data; name", b'form-data; name="file', b"", b"=;"]
)
def test_a_part_without_a_name_is_refused(disposition: bytes) -> None:
    assert code_of(b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\nx" + END) == "bad_multipart"


def test_an_empty_file_is_a_file() -> None:
    assert file_in_form(HEAD + END, FORM) == b""
    assert file_in_form(HEAD[:-2] + END, FORM) == b""  # not even the empty line's own end


def test_padding_a_preamble_and_an_epilogue_are_allowed() -> None:
    body = b"preamble\r\n" + HEAD.replace(b"--b", b"--b \t") + b"image" + END + b"epilogue"
    assert file_in_form(body, FORM) == b"image"


def test_a_line_that_only_begins_with_the_boundary_ends_the_part_all_the_same() -> None:
    assert code_of(HEAD + b"pic\r\n--bture" + END) == "bad_multipart"


def test_as_many_parts_as_the_limit_and_no_more() -> None:
    parts = (OTHER + b"\r\n") * (MAX_PARTS - 1)
    assert file_in_form(parts + HEAD + b"x" + END, FORM) == b"x"
    assert code_of(OTHER + b"\r\n" + parts + HEAD + b"x" + END) == "bad_multipart"


HOSTILE = {
    "almost boundaries": HEAD + b"\r\n--a" * (5 * MIB) + END,
    "boundaries that go on": HEAD + b"\r\n--bx" * (3 * MIB) + END,
    "line ends": HEAD + b"\r\n" * (10 * MIB) + END,
    "no line end": HEAD + b"\r" * (20 * MIB),
    "dashes": b"-" * (20 * MIB),
    "an endless header": b"--b\r\n" + b"a" * (20 * MIB),
    "endless padding": b"--b" + b" " * (20 * MIB),
    "endless parameters": (b"--b\r\nContent-Disposition: form-data" + b";a=b" * 2000 + b"\r\n\r\n\r\n") * MAX_PARTS,
    "endless quotes": (b"--b\r\nContent-Disposition: form-data;a=" + b'"' * 8000 + b"\r\n\r\n\r\n") * MAX_PARTS,
    "endless escapes": (b'--b\r\nContent-Disposition: form-data;a="' + b"\\" * 8000 + b"\r\n\r\n\r\n") * MAX_PARTS,
    "loose quotes": (b"--b\r\nContent-Disposition: form-data" + b';a="b"c' * 1000 + b"\r\n\r\n\r\n") * MAX_PARTS,
    "parts without end": (OTHER + b"\r\n") * 100_000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_form_costs_more_than_a_pass_over_its_bytes(body: bytes) -> None:
    started = time.process_time()
    with_refusal = re.compile("bad_multipart|no_file")
    try:
        file_in_form(body, FORM)
    except BadRequest as refusal:
        assert with_refusal.fullmatch(refusal.code)
    assert time.process_time() - started < 1  # CPU seconds: the promise to all hostile bytes; milliseconds in fact
