"""JSON from outside: what is long is cut out and read in pieces, what is hostile is refused before it is parsed."""

import json
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.endpoints.batch import _entries_of_json
from service.api.parsing import json_body, long_values
from service.api.parsing.json_body import MOST_JSON_VALUES, parsing_bytes, read_json
from service.api.parsing.long_values import LongArray, LongText
from service.api.parsing.short_json import read_short_json
from service.api.v2.json_tensors import flat, numbers
from service.api.v2.tensors import read_request
from service.errors import BadRequest, TooLarge

_MIB = 1024 * 1024
_LARGE = 24 * _MIB + 1
_MANY = MOST_JSON_VALUES


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is long, and pieces are short."""
    for name, size in (("_SMALL_BYTES", 0), ("_LONG_BYTES", 3), ("_LEAST_LONG_BYTES", 3), ("_LONG_GAP_BYTES", 5)):
        monkeypatch.setattr(json_body, name, size)
    monkeypatch.setattr(long_values, "PIECE_BYTES", 40)


def as_parsed(part: Any) -> Any:
    """Return a document with its long values read; arrays are flat."""
    if isinstance(part, LongText):
        return part.content().decode()
    if isinstance(part, LongArray):
        return numbers("x", "FP64", (part.count,), part).tolist()
    if isinstance(part, list):
        return [as_parsed(entry) for entry in part]
    if isinstance(part, dict):
        return {name: as_parsed(value) for name, value in part.items()}
    return part


_TEXT = st.text(st.sampled_from('ab"\\/\n{}[],:ß😀 0'), max_size=30)
_ROW = st.lists(st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300), min_size=1, max_size=40)
_DOCUMENT = st.dictionaries(
    st.sampled_from("abc"),
    _TEXT | st.none() | st.booleans() | st.floats(-1, 1) | _ROW | st.lists(_TEXT, max_size=5),
    max_size=6,
)


@given(document=_DOCUMENT, indent=st.none() | st.just(1), ascii_only=st.booleans())
@pytest.mark.usefixtures("tiny")
def test_what_was_cut_out_and_read_in_pieces_is_what_was_written(
    document: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    written = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    assert as_parsed(read_json(written)) == orjson.loads(written)


@given(body=st.lists(st.sampled_from(['"', "\\", "[", "]", "{", "}", ",", ":", "1", "a", " "]), max_size=40))
@pytest.mark.usefixtures("tiny")
def test_any_bytes_are_read_or_refused(body: list[str]) -> None:
    content = "".join(body).encode()
    try:
        document = as_parsed(read_json(content))
    except BadRequest:
        return  # an array that is no tensor
    except ValueError:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(content)
        return
    expected = orjson.loads(content)
    assert document == (flat("x", expected) if isinstance(expected, list) else expected)


NESTED = [
    [1, 2, 3, 4, 5, 6],
    [[1, 2, 3], [4, 5, 6]],
    [[1], [2], [3], [4], [5], [6]],
    [[[1, 2]], [[3, 4]], [[5, 6]]],
    [[[[1, 2, 3, 4, 5, 6]]]],
]


@pytest.mark.parametrize("data", NESTED, ids=str)
@pytest.mark.parametrize("datatype", ["UINT8", "INT64", "FP16", "FP32", "FP64"])
@pytest.mark.parametrize("indent", [None, 2])
def test_long_arrays_are_read_flat_or_nested(data: Any, datatype: str, indent: int | None) -> None:
    written = json.dumps(data, indent=indent).encode()
    array = LongArray(written, 0, len(written), 5)
    assert numbers("x", datatype, (2, 3), array).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "written",
    [
        b"[[1,2],[3]]",
        b"[[1,2],3]",
        b"[[1],[2,3]]",
        b"[1[,]2]",
        b"[[1]2,[3]]",
        b"[1,2]]",
        b"[[1,2]",
        b"[1,,2]",
        b"[,1]",
        b"[1,2,]",
        b"[1 2,3]",
        b"[[],[1]]",
        b"[[1],[]]",
        b"[[1,[2,3],4]]",
        b"[01,2]",
        b"[1,null]",
        b"[1,true]",
        b"[1,nan]",
        b"[" * 17 + b"1,2" + b"]" * 17,
    ],
)
def test_long_arrays_that_are_wrong_are_refused(written: bytes) -> None:
    count = written.count(b",") + 1
    with pytest.raises(BadRequest, match=r"does not fit|nested evenly"):
        numbers("x", "FP32", (count,), LongArray(written, 0, len(written), count - 1))


@pytest.mark.parametrize("few", [["0.5"], ["1e2", "0.25"], ["2E1"], ["-0.5", "9223372036854775808"]])
def test_a_few_fractions_between_whole_numbers_keep_their_places(few: list[str]) -> None:
    tokens = [*(str(number) for number in range(40)), *few, *(str(-number) for number in range(40))]
    written = f"[{','.join(tokens)}]".encode()
    array = numbers("x", "FP64", (len(tokens),), LongArray(written, 0, len(written), len(tokens) - 1))
    assert array.tolist() == json.loads(written)


def test_whole_numbers_of_64_bits_are_exact_in_long_arrays_too() -> None:
    values = [2**64 - 1, 0, 2**53 + 1] * 1000
    written = json.dumps(values).encode()
    array = LongArray(written, 0, len(written), len(values) - 1)
    assert numbers("x", "UINT64", (3000,), array).tolist() == values
    with pytest.raises(BadRequest, match="cannot hold"):
        numbers("x", "INT64", (3000,), array)


def v2(data: bytes, datatype: str, count: int) -> bytes:
    head = b'{"inputs":[{"name":"images","datatype":"%b","shape":[%d],"data":' % (datatype.encode(), count)
    return head + data + b"}]}"


def listed(entry: bytes, count: int) -> bytes:
    return b"[" + b",".join([entry] * count) + b"]"


NEST = listed(b"[" * 1000 + b"]" * 1000, _LARGE // 2001)
HOSTILE = {
    "nested a thousand times in parameters": lambda: b'{"parameters":{"a":' + NEST + b'},"inputs":[]}',
    "nested a thousand times in data": lambda: v2(NEST, "FP32", _LARGE // 2001),
    "nested twenty times in data": lambda: v2(listed(b"[" * 20 + b"0" + b"]" * 20, 400_000), "FP32", 400_000),
    "only opening brackets": lambda: b"[" * _LARGE,
    "objects in objects": lambda: b'{"":' * (_LARGE // 4),
    "empty lists": lambda: v2(listed(b"[]", _LARGE // 3), "FP32", _LARGE // 3),
    "empty lists, below the limit": lambda: v2(listed(b"[]", _MANY), "FP32", _MANY),
    "empty objects": lambda: v2(listed(b"{}", _LARGE // 3), "FP32", _LARGE // 3),
    "small objects": lambda: v2(listed(b'{"":0}', _LARGE // 7), "BYTES", _LARGE // 7),
    "many keys": lambda: b'{"parameters":{' + b'"":0,' * (_LARGE // 5) + b'"":0},"inputs":[]}',
    "empty strings": lambda: v2(listed(b'""', _LARGE // 3), "BYTES", _LARGE // 3),
    "short strings": lambda: v2(listed(b'"ab"', _LARGE // 5), "BYTES", _LARGE // 5),
    "escaped quotation marks": lambda: b'{"id":"' + b'\\"' * (_LARGE // 2) + b'","inputs":[]}',
    "backslashes": lambda: b'{"id":"' + b"\\\\" * (_LARGE // 2) + b'","inputs":[]}',
    "one number": lambda: v2(b"[" + b"1" * _LARGE + b"]", "FP32", 1),
    "commas": lambda: v2(b"[" + b"," * _MANY + b"]", "FP32", _MANY + 1),
    "colons": lambda: b":" * _LARGE,
    "white space": lambda: b'{"inputs":' + b" " * _LARGE + b"[]}",
    "numbers, one too many": lambda: v2(listed(b"0", _MANY + 1), "FP32", _MANY + 1),
    "numbers of another shape": lambda: v2(listed(b"0.5", _MANY), "FP32", 7),
    "lists in a batch": lambda: b'{"images":' + listed(b"[]", _LARGE // 3) + b"}",
    "objects in a batch": lambda: b'{"images":' + listed(b'{"":0}', _LARGE // 7) + b"}",
    "strings in a batch": lambda: b'{"images":' + listed(b'""', _LARGE // 3) + b"}",
    "a batch nested a thousand times": lambda: b'{"images":' + NEST + b"}",
    "numbers between strings": lambda: b'{"a":[' + (b'"",' + b"0," * 400) * 60_000 + b'0],"inputs":[]}',
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_for_less_than_they_weigh(name: str) -> None:
    body = HOSTILE[name]()
    read: Callable[[bytes], object] = (
        _entries_of_json if b'"images":' in body[:50] else partial(read_request, json_bytes=None)
    )
    tracemalloc.start()
    began = time.thread_time()
    try:
        with pytest.raises((BadRequest, TooLarge)):
            read(body)
        cpu_s, (_, peak) = time.thread_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 3 * len(body)
    assert cpu_s < 1  # below 0.1 s on a machine that is not busy; parsed, they took up to 5


ACCEPTED = {
    "digits": lambda: v2(listed(b"0", _MANY), "FP64", _MANY),
    "bytes": lambda: v2(listed(b"0", _MANY), "UINT8", _MANY),
    "fractions": lambda: v2(listed(b"0.5", _MANY // 4), "FP32", _MANY // 4),
    "colours": lambda: v2(listed(listed(listed(b"0", 3), 100), _MANY // 300), "FP64", _MANY // 300 * 300),
    "columns": lambda: v2(listed(b"[0]", _MANY), "FP64", _MANY),
    "indented": lambda: v2(listed(b"\n            0", _MANY // 8), "FP32", _MANY // 8),
    "nested eight times": lambda: v2(listed(b"[" * 7 + b"0" + b"]" * 7, 1_000_000), "FP64", 1_000_000),
    "one long string": lambda: v2(b'["' + b"a" * _LARGE + b'"]', "BYTES", 1),
    "a long string with one character of four bytes": lambda: v2('["😀'.encode() + b"a" * _LARGE + b'"]', "BYTES", 1),
    "escapes": lambda: v2(b'["' + b"\\u0000" * (_LARGE // 6) + b'"]', "BYTES", 1),
    "brackets, braces and commas in a string": lambda: v2(b'["' + b"[{,}]" * (_LARGE // 5) + b'"]', "BYTES", 1),
    "many strings": lambda: v2(listed(b'"' + b"a" * 900 + b'"', 65_536), "BYTES", 65_536),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_large_body_takes_at_most_ten_times_its_size_and_is_parsed_in_pieces(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = ACCEPTED[name]()
    parsed, loads = [0], orjson.loads
    monkeypatch.setattr(orjson, "loads", lambda text: (parsed.append(len(text)), loads(text))[1])
    tracemalloc.start()
    try:
        (tensor,) = read_request(body, None).inputs
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tensor.data) in (1, *tensor.shape[:1])
    assert len(body) + peak <= 10 * len(body)
    assert peak <= parsing_bytes(body) + 4 * _MIB  # so what is held is what is taken
    assert max(parsed) <= json_body._MOST_LEFT_BYTES // 2 + _MIB  # 2 ms a MB: below 0.1 s
    assert sorted(parsed)[-2] <= long_values.PIECE_BYTES + 2


@pytest.mark.parametrize("name", ["digits", "fractions", "columns"])
def test_a_large_body_takes_little_time(name: str) -> None:
    body = ACCEPTED[name]()
    began = time.thread_time()
    read_request(body, None)
    assert time.thread_time() - began < 60e-9 * len(body)  # 8 to 12 ns a byte on a machine that is not busy


def test_short_json_is_bounded_in_depth_but_not_by_what_strings_hold() -> None:
    deep = b'{"a":' * 31 + b"[" + b"]" + b"}" * 31
    assert read_short_json(deep) == orjson.loads(deep)
    with pytest.raises(BadRequest, match="more than 32 levels"):
        read_short_json(b'{"a":' * 32 + b"[" + b"]" + b"}" * 32)
    brackets = json.dumps({"a": '"[{\\' * 100, "b": [[]] * 40}).encode()
    assert read_short_json(brackets) == orjson.loads(brackets)


def test_strings_are_not_mistaken_for_what_was_cut_out() -> None:
    text = "a[1,2]" * 4000
    document = {"a": text, "b": [*range(3000)], "c\\": '\\"', "d": text + "\\"}
    assert as_parsed(read_json(json.dumps(document).encode())) == document
