"""The request and response bodies of the Open Inference Protocol (V2), without HTTP.

A body is JSON, or JSON followed by the raw bytes of tensors: little-endian, row-major, without padding; an element of
BYTES is its length in four bytes followed by its content. Clients deviate from the protocol: `data` may be nested or
flat, and a body may contain both binary and JSON tensors.
"""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.parsing.json_body import read_json
from service.api.parsing.long_values import LARGEST_RANK, LongArray, LongText
from service.api.parsing.short_json import NotJson
from service.api.v2.json_tensors import bad_tensor, flat, numbers, shaped
from service.model_files.tensor_spec import DTYPES

DATATYPES = (*DTYPES, "BYTES")
_MOST_ELEMENTS = 65_536  # of BYTES in one request
LONGEST_NAME = 1024  # error messages repeat names
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor by name: an array, or for BYTES the elements in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[Any] | list[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """A requested output: raw or as JSON, and optionally as its best classes instead of all values."""

    name: str
    is_binary: bool
    best_classes: int | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """The content of an inference request. `outputs` is None if the request names none, which means all."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] | None = None
    id: str | None = None
    wants_binary: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)


def datatype_of(array: NDArray[Any]) -> str:
    """Return the protocol's name of an array's type. Raises KeyError for an unsupported type."""
    return next(name for name, dtype in DTYPES.items() if dtype == array.dtype)


# Checks an input's name, datatype and shape before its data is read. Raises BadRequest.
Check = Callable[[str, str, tuple[int, ...]], None]


def _takes_all(_name: str, _datatype: str, _shape: tuple[int, ...]) -> None:
    pass


def read_request(body: bytes, json_bytes: int | None, check: Check = _takes_all) -> InferRequest:
    """Read a request whose JSON is the first `json_bytes` bytes of the body, or all of it for None.

    Raises BadRequest with the reason, and the errors of `check`.
    """
    if json_bytes is not None and json_bytes > len(body):
        raise bad_tensor(f"Inference-Header-Content-Length is {json_bytes}, but the body has only {len(body)} bytes.")
    content = body if json_bytes is None else body[:json_bytes]
    binary = memoryview(body)[len(content) :]
    document = _document(content)
    wants_binary = _flag(_parameters(document, "the request"), "binary_data_output", False)
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise bad_tensor("`id` must be a string of at most 8 KiB.")
    return InferRequest(
        _read_inputs(document, binary, check),
        _read_outputs(document, wants_binary),
        request_id,
        wants_binary,
        _parameters(document, "the request"),
    )


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = read_json(content)
    except NotJson:
        raise bad_tensor(
            "The request is not valid JSON; with binary tensors, Inference-Header-Content-Length must be the number of "
            "bytes that the JSON has."
        ) from None
    if not isinstance(document, dict):
        raise bad_tensor("The request must be a JSON object with `inputs`.")
    return document


def _parameters(part: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = part.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise bad_tensor(f"`parameters` of {where} must be a JSON object.")
    return parameters


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise bad_tensor(f"`{name}` must be true or false.")
    return value


def _parts(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the entries of `inputs` or `outputs`, whose names have to be unique."""
    parts = document.get(name)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise bad_tensor(f"`{name}` must be a list of JSON objects.")
    names = [part.get("name") for part in parts]
    if not all(isinstance(given, str) and 0 < len(given) <= LONGEST_NAME for given in names):
        raise bad_tensor(f"Each entry of `{name}` must have a `name` of at most {LONGEST_NAME} characters.")
    if len(set(names)) < len(names):
        raise bad_tensor(f"A name appears twice in `{name}`.")
    return parts


def _read_inputs(document: dict[str, Any], binary: memoryview, check: Check) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    position = 0
    for part in _parts(document, "inputs"):
        parameters = _parameters(part, f"input `{part['name']}`")
        _check_shared_memory(parameters)
        size = parameters.get("binary_data_size")
        head = _head(part)
        check(*head)
        if size is None:
            tensors.append(_read_json_tensor(*head, part.get("data")))
            continue
        if not _is_count(size) or "data" in part:
            raise bad_tensor(f"Input `{part['name']}` must have either `data` or a whole number as `binary_data_size`.")
        if size > len(binary) - position:
            raise bad_tensor(
                f"Input `{part['name']}` declares {size} bytes, but only {len(binary) - position} are left in the body."
            )
        tensors.append(_read_binary_tensor(*head, binary[position : position + size]))
        position += size
    if not tensors:
        raise bad_tensor("`inputs` is empty; a model needs its input.")
    if position < len(binary):
        raise bad_tensor(f"{len(binary) - position} bytes of the body belong to no input.")
    return tuple(tensors)


def _check_shared_memory(parameters: dict[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        raise bad_tensor("Shared memory is not supported; send tensors in the request body.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _head(part: dict[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    """Return an input's name, datatype and shape."""
    name, datatype, shape = part["name"], part.get("datatype"), part.get("shape")
    if datatype not in DATATYPES:
        raise bad_tensor(f"Input `{name}` has a `datatype` that is not supported; there are {', '.join(DATATYPES)}.")
    if not isinstance(shape, list) or len(shape) > LARGEST_RANK or not all(map(_is_count, shape)):
        raise bad_tensor(
            f"`shape` of input `{name}` must be a list of at most {LARGEST_RANK} whole numbers, none negative."
        )
    return name, datatype, tuple(shape)


def _read_binary_tensor(name: str, datatype: str, shape: tuple[int, ...], content: memoryview) -> Tensor:
    count = math.prod(shape)
    if datatype == "BYTES":
        if count > _MOST_ELEMENTS:
            raise bad_tensor(f"Input `{name}` has {count} elements; at most {_MOST_ELEMENTS} are accepted.")
        return Tensor(name, datatype, shape, _elements(name, content, count))
    dtype = DTYPES[datatype]
    if len(content) != count * dtype.itemsize:
        raise bad_tensor(
            f"Input `{name}` of {datatype} {list(shape)} takes {count * dtype.itemsize} bytes, and has {len(content)}."
        )
    return Tensor(name, datatype, shape, shaped(name, np.frombuffer(content, dtype), shape))


def _elements(name: str, content: memoryview, count: int) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(content) and len(elements) <= count:
        start = position + _LENGTH.size
        if start > len(content):
            break
        (length,) = _LENGTH.unpack_from(content, position)
        position = start + length
        elements.append(bytes(content[start:position]))
    if position != len(content) or len(elements) != count:
        raise bad_tensor(f"Input `{name}` must be {count} elements, each after its length in 4 bytes (little-endian).")
    return elements


def _read_json_tensor(name: str, datatype: str, shape: tuple[int, ...], data: object) -> Tensor:
    if not isinstance(data, list | LongArray):
        raise bad_tensor(f"Input `{name}` has no `data`, and no `binary_data_size` in its parameters.")
    if datatype == "BYTES":
        texts = flat(name, data) if isinstance(data, list) else []
        if len(texts) != math.prod(shape) or not set(map(type, texts)) <= {str, LongText}:
            raise bad_tensor(f"`data` of input `{name}` must be {math.prod(shape)} strings.")
        return Tensor(name, datatype, shape, [_content(name, text) for text in texts])
    return Tensor(name, datatype, shape, numbers(name, datatype, shape, data))


def _content(name: str, text: str | LongText) -> bytes:
    try:
        return text.encode() if isinstance(text, str) else text.content()
    except ValueError:
        raise bad_tensor(f"`data` of input `{name}` has a string that is not valid JSON.") from None


def _read_outputs(document: dict[str, Any], wants_binary: bool) -> tuple[RequestedOutput, ...] | None:
    if not document.get("outputs"):
        return None
    requested = []
    for part in _parts(document, "outputs"):
        parameters = _parameters(part, f"output `{part['name']}`")
        _check_shared_memory(parameters)
        best = parameters.get("classification")
        if best is not None and (not _is_count(best) or best < 1):
            raise bad_tensor(f"`classification` of output `{part['name']}` must be a whole number above 0.")
        requested.append(RequestedOutput(part["name"], _flag(parameters, "binary_data", wants_binary), best))
    return tuple(requested)


def write_response(head: dict[str, Any], outputs: Sequence[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    """Return a response's body, and how many bytes of it are JSON, or None if all are.

    `head` has the other fields of the JSON. Each output is paired with whether to send it as raw bytes.
    """
    parts, blobs = [], []
    for tensor, is_binary in outputs:
        part: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if is_binary:
            blobs.append(_raw(tensor))
            part["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            part["data"] = _listed(tensor)
        parts.append(part)
    line_end = 0 if blobs else orjson.OPT_APPEND_NEWLINE
    document = orjson.dumps({**head, "outputs": parts}, option=orjson.OPT_SERIALIZE_NUMPY | line_end)
    return (b"".join((document, *blobs)), len(document)) if blobs else (document, None)


def _raw(tensor: Tensor) -> bytes:
    if isinstance(tensor.data, list):
        return b"".join(part for element in tensor.data for part in (_LENGTH.pack(len(element)), element))
    return np.ascontiguousarray(tensor.data, DTYPES[tensor.datatype]).tobytes()


def _listed(tensor: Tensor) -> Any:
    if isinstance(tensor.data, list):
        return [element.decode(errors="replace") for element in tensor.data]
    values = tensor.data.astype(np.float32) if tensor.datatype == "FP16" else tensor.data
    return np.ascontiguousarray(values).ravel()
