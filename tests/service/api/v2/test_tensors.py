"""The bodies of the Open Inference Protocol: what clients send is understood, what does not fit is told in words."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.parsing.json_body import MOST_JSON_VALUES
from service.api.v2.tensors import (
    DATATYPES,
    RequestedOutput,
    Tensor,
    datatype_of,
    read_request,
    write_response,
)
from service.errors import BadRequest, TooLarge


def body_of(document: dict[str, Any], *blobs: bytes) -> tuple[bytes, int]:
    text = json.dumps(document).encode()
    return b"".join((text, *blobs)), len(text)


def raw_input(datatype: str, shape: list[int], size: int, name: str = "images") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def json_input(datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "datatype": datatype, "shape": shape, "data": data}]}


def only_input(document: dict[str, Any]) -> Tensor:
    (tensor,) = read_request(json.dumps(document).encode(), None).inputs
    return tensor


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
def test_a_raw_tensor_of_every_type_comes_back_as_it_was_sent(datatype: str) -> None:
    dtypes = {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
    sent = np.arange(6).astype(dtypes.get(datatype, datatype.lower())).reshape(2, 3)
    assert datatype_of(sent) == datatype
    body, json_bytes = body_of({"inputs": [raw_input(datatype, [2, 3], sent.nbytes)]}, sent.tobytes())
    (received,) = read_request(body, json_bytes).inputs
    assert (received.datatype, received.shape) == (datatype, (2, 3))
    assert np.array_equal(received.data, sent)
    answer, answer_json = write_response({"model_name": "m"}, [(received, True)])
    assert answer_json is not None
    assert answer[answer_json:] == sent.tobytes()
    assert json.loads(answer[:answer_json])["outputs"][0]["parameters"] == {"binary_data_size": sent.nbytes}


def test_raw_and_json_tensors_can_share_a_body() -> None:
    document = {
        "id": "seven",
        "inputs": [
            raw_input("BYTES", [2], 4 + 3 + 4, "texts"),
            {"name": "numbers", "datatype": "INT32", "shape": [2, 2], "data": [[1, 2], [3, -4]]},
            raw_input("UINT8", [3], 3, "bytes"),
        ],
    }
    body, json_bytes = body_of(document, struct.pack("<I", 3) + b"cat" + struct.pack("<I", 0), b"\x01\x02\xff")
    request = read_request(body, json_bytes)
    texts, numbers, small = request.inputs
    assert request.id == "seven"
    assert texts.data == [b"cat", b""]
    assert np.array_equal(numbers.data, [[1, 2], [3, -4]])
    assert np.array_equal(small.data, [1, 2, 255])


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]]])
def test_json_data_may_be_flat_or_nested(data: Any) -> None:
    assert np.array_equal(only_input(json_input("FP32", [2, 2], data)).data, [[1, 2], [3, 4]])


def test_whole_numbers_of_64_bits_are_exact() -> None:
    values = [2**64 - 1, 0, 2**53 + 1]
    assert np.asarray(only_input(json_input("UINT64", [3], values)).data).tolist() == values


def test_json_may_hold_only_so_many_values_but_long_texts() -> None:
    many = b'{"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [%b0]}]}' % (b"0," * MOST_JSON_VALUES)
    with pytest.raises(TooLarge, match="8,000,000 values"):
        read_request(many, None)
    text = "a" * (MOST_JSON_VALUES * 4)
    assert only_input(json_input("BYTES", [1], [text])).data == [text.encode()]


def test_strings_are_elements_of_bytes() -> None:
    assert only_input(json_input("BYTES", [2, 1], [["cat"], ["ß"]])).data == [b"cat", "ß".encode()]


def test_outputs_are_raw_where_they_or_the_whole_request_ask_for_it() -> None:
    document = json_input("UINT8", [1], [1]) | {
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "a", "parameters": {"binary_data": False, "classification": 3}},
            {"name": "b"},
            {"name": "c", "parameters": {"binary_data": True}},
        ],
    }
    request = read_request(json.dumps(document).encode(), None)
    assert request.wants_binary
    assert request.outputs == (
        RequestedOutput("a", False, 3),
        RequestedOutput("b", True),
        RequestedOutput("c", True),
    )
    assert read_request(json.dumps(json_input("UINT8", [1], [1])).encode(), None).outputs is None


def test_an_answer_without_raw_outputs_is_only_json() -> None:
    outputs = [
        (Tensor("p", "FP32", (1, 2), np.array([[0.25, 0.75]], np.float32)), False),
        (Tensor("h", "FP16", (1,), np.array([0.5], np.float16)), False),
        (Tensor("c", "BYTES", (1,), [b"0.75:1:cat"]), False),
    ]
    body, json_bytes = write_response({"model_name": "m", "id": "x"}, outputs)
    assert json_bytes is None
    assert json.loads(body) == {
        "model_name": "m",
        "id": "x",
        "outputs": [
            {"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]},
            {"name": "h", "datatype": "FP16", "shape": [1], "data": [0.5]},
            {"name": "c", "datatype": "BYTES", "shape": [1], "data": ["0.75:1:cat"]},
        ],
    }


def test_raw_bytes_elements_come_after_their_lengths() -> None:
    body, json_bytes = write_response({}, [(Tensor("c", "BYTES", (2,), [b"cat", b""]), True)])
    assert body[json_bytes:] == b"\x03\0\0\0cat\0\0\0\0"


GOOD = {"inputs": [raw_input("UINT8", [2, 2], 4)]}


@pytest.mark.parametrize(
    ("document", "blob", "words"),
    [
        ({"inputs": []}, b"", "empty"),
        ({}, b"", "`inputs` must be a list"),
        ({"inputs": [7]}, b"", "`inputs` must be a list"),
        ({"inputs": [{"datatype": "UINT8", "shape": [1], "data": [1]}]}, b"", "must have a `name`"),
        ({"inputs": GOOD["inputs"] * 2}, b"\0" * 8, "appears twice"),
        (GOOD, b"\0" * 3, "only 3 are left"),
        (GOOD, b"\0" * 5, "1 bytes of the body belong to no input"),
        ({"inputs": [raw_input("UINT8", [2, 3], 4)]}, b"\0" * 4, "takes 6 bytes, and has 4"),
        ({"inputs": [raw_input("UINT8", [2, -2], 4)]}, b"\0" * 4, "none negative"),
        ({"inputs": [raw_input("UINT8", [2**62, 2**62], 4)]}, b"\0" * 4, "and has 4"),
        ({"inputs": [raw_input("UINT8", [1] * 17, 1)]}, b"\0", "at most 16"),
        ({"inputs": [raw_input("BF16", [2], 4)]}, b"\0" * 4, "not supported; there are BOOL"),
        ({"inputs": [raw_input("UINT8", [4], -4)]}, b"", "whole number"),
        ({"inputs": [raw_input("BYTES", [1], 6)]}, b"\x03\0\0\0ca", "each after its length"),
        ({"inputs": [raw_input("BYTES", [2], 7)]}, b"\x03\0\0\0cat", "must be 2 elements"),
        ({"inputs": [raw_input("BYTES", [1], 3)]}, b"\x03\0\0", "each after its length"),
        (json_input("UINT8", [1], [300]), b"", "cannot hold"),
        (json_input("UINT8", [1], [-1]), b"", "cannot hold"),
        (json_input("UINT8", [1], [1.5]), b"", "does not fit UINT8"),
        (json_input("UINT64", [2], [2**64 - 1, -1]), b"", "does not fit UINT64"),
        (json_input("INT64", [2], [2**64 - 1, 0]), b"", "cannot hold"),
        (json_input("FP32", [0, 2**62, 2**62, 2**62], []), b"", "too large"),
        (json_input("UINT8", [1], ["1"]), b"", "does not fit UINT8"),
        (json_input("FP32", [2], [1, None]), b"", "does not fit FP32"),
        (json_input("FP32", [2], [[1], [2, 3]]), b"", "nested evenly"),
        (json_input("FP32", [2], [1, 2, 3]), b"", "takes 2 numbers, and has 3"),
        (json_input("FP32", [2], 7), b"", "no `data`"),
        (json_input("BYTES", [1], [7]), b"", "1 strings"),
        (GOOD | {"id": 7}, b"\0" * 4, "`id` must be a string"),
        (GOOD | {"parameters": [1]}, b"\0" * 4, "`parameters` of the request"),
        (GOOD | {"parameters": {"binary_data_output": 1}}, b"\0" * 4, "true or false"),
        (GOOD | {"outputs": [{"name": "a", "parameters": {"classification": 0}}]}, b"\0" * 4, "above 0"),
        (GOOD | {"outputs": {"name": "a"}}, b"\0" * 4, "`outputs` must be a list"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(document: dict[str, Any], blob: bytes, words: str) -> None:
    body, json_bytes = body_of(document, blob)
    with pytest.raises(BadRequest, match=words):
        read_request(body, json_bytes)


def test_a_header_length_beyond_the_body_or_inside_the_json_is_refused() -> None:
    body, json_bytes = body_of(GOOD, b"\0" * 4)
    with pytest.raises(BadRequest, match="has only"):
        read_request(body, len(body) + 1)
    with pytest.raises(BadRequest, match="not valid JSON"):
        read_request(body, json_bytes - 1)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_any_bytes_are_read_or_refused(body: bytes, json_bytes: int | None) -> None:
    with pytest.raises(BadRequest):
        read_request(body, json_bytes)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    name=st.just("images") | _JSON,
    datatype=st.sampled_from(DATATYPES) | _JSON,
    shape=st.lists(st.integers(-2, 4), max_size=4) | _JSON,
    data=_JSON,
    extra=st.dictionaries(st.sampled_from(["parameters", "outputs", "id"]), _JSON),
)
def test_any_json_is_read_or_refused(name: Any, datatype: Any, shape: Any, data: Any, extra: dict[str, Any]) -> None:
    document = {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}], **extra}
    try:
        read_request(json.dumps(document).encode(), None)
    except BadRequest as error:
        assert error.status == 400
