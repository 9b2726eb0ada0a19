"""The nodes of an ONNX file, with the facts that a check of the axes of operators needs.

This module reads protobuf's wire format itself: the `onnx` package is not part of the service, and ONNX Runtime exposes
no nodes. The field numbers are those of onnx.proto. Weights are skipped, not copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_MOST_NUMBERS = 64  # of a constant that may be a shape or axes
_INT32, _INT64, _BOOL = 6, 7, 9  # TensorProto's element types
_NUMBER_BYTES = {_INT32: 4, _INT64: 8, _BOOL: 1}

Numbers = tuple[int, ...]
_Field = tuple[int, int | memoryview]


class Unreadable(Exception):
    """The file is not ONNX in protobuf."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, Numbers]  # attributes that are whole numbers or constants of them
    graphs: "tuple[Graph, ...]"  # branches, or a loop's body


@dataclass(slots=True)
class Graph:
    """A graph, or the body of a function."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Numbers | None] = field(default_factory=dict)  # None: not small whole numbers
    ranks: dict[str, int] = field(default_factory=dict)  # if known from the file


@dataclass(slots=True)
class GraphFile:
    """A whole model."""

    graph: Graph = field(default_factory=Graph)
    functions: dict[tuple[str, str], Graph] = field(default_factory=dict)  # by domain and name
    opset: int = 0


def read_graph_file(content: bytes) -> GraphFile:
    """Return the contents of a model file. Raises Unreadable."""
    try:
        return _model(memoryview(content))
    except (IndexError, TypeError, ValueError, RecursionError):
        raise Unreadable from None


def _model(content: memoryview) -> GraphFile:
    model = GraphFile()
    for number, value in _fields(content):
        if number == 7:
            model.graph = _graph(_part(value))
        elif number == 8:
            opset = dict(_fields(_part(value)))
            if _text(opset.get(1, memoryview(b""))) in ("", "ai.onnx"):
                model.opset = _number(opset.get(2, 0))
        elif number == 25:
            name, function = _function(_part(value))
            model.functions[name] = function
    return model


def _graph(content: memoryview) -> Graph:
    graph = Graph()
    for number, value in _fields(content):
        if number == 1:
            graph.nodes.append(_node(_part(value)))
        elif number == 5:
            name, numbers, rank = _tensor(_part(value))
            graph.constants[name], graph.ranks[name] = numbers, rank
        elif number in (11, 12, 13):
            name, known_rank = _value_info(_part(value))
            if known_rank is not None:
                graph.ranks[name] = known_rank
            if number != 13:
                (graph.inputs if number == 11 else graph.outputs).append(name)
    return graph


def _function(content: memoryview) -> tuple[tuple[str, str], Graph]:
    name, domain, graph = "", "", Graph()
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number == 10:
            domain = _text(value)
        elif number in (4, 5):
            (graph.inputs if number == 4 else graph.outputs).append(_text(value))
        elif number == 7:
            graph.nodes.append(_node(_part(value)))
    return (domain, name), graph


def _node(content: memoryview) -> Node:
    operator = domain = ""
    inputs: list[str] = []
    outputs: list[str] = []
    numbers: dict[str, Numbers] = {}
    graphs: list[Graph] = []
    for number, value in _fields(content):
        if number in (1, 2):
            (inputs if number == 1 else outputs).append(_text(value))
        elif number == 4:
            operator = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            _read_attribute(_part(value), numbers, graphs)
    return Node(operator, domain, tuple(inputs), tuple(outputs), numbers, tuple(graphs))


def _read_attribute(content: memoryview, numbers: dict[str, Numbers], graphs: list[Graph]) -> None:
    name, found, has_numbers = "", [], False
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number in (3, 8):
            has_numbers = True
            found += _varints(value)
        elif number == 5:
            constant = _tensor(_part(value))[1]
            if constant is not None:
                has_numbers, found = True, list(constant)
        elif number in (6, 11):
            graphs.append(_graph(_part(value)))
    if has_numbers:
        numbers[name] = tuple(found)


def _tensor(content: memoryview) -> tuple[str, Numbers | None, int]:
    """Return a constant's name, its numbers if they are few and whole, and its rank."""
    name, kind, raw = "", 0, memoryview(b"")
    dims: list[int] = []
    listed: list[int] = []
    for number, value in _fields(content):
        if number == 1:
            dims += _varints(value)
        elif number == 2:
            kind = _number(value)
        elif number in (5, 7) and (isinstance(value, int) or len(value) <= 10 * _MOST_NUMBERS):
            listed += _varints(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _part(value)
    size = _NUMBER_BYTES.get(kind)
    if size is None or len(raw) > size * _MOST_NUMBERS:
        return name, None, len(dims)
    parts = (raw[start : start + size] for start in range(0, len(raw), size))
    return name, tuple(listed) or tuple(int.from_bytes(part, "little", signed=True) for part in parts), len(dims)


def _value_info(content: memoryview) -> tuple[str, int | None]:
    """Return a value's name, and its rank if it is a tensor of known rank."""
    name, rank = "", None
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for shape in _parts(_part(value), 1, 2):
                rank = sum(1 for kind, _ in _fields(shape) if kind == 1)
    return name, rank


def _parts(content: memoryview, *path: int) -> Iterator[memoryview]:
    if not path:
        yield content
    else:
        for number, value in _fields(content):
            if number == path[0]:
                yield from _parts(_part(value), *path[1:])


def _fields(content: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(content):
            raise ValueError("cut off")
        yield key >> 3, content[at : at + size]
        at += size


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varints(value: int | memoryview) -> list[int]:
    """Return signed numbers, which may be packed."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _number(value: int | memoryview) -> int:
    if isinstance(value, int):
        return _signed(value)
    raise TypeError("a number was expected")


def _part(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("bytes were expected")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_part(value)).decode("utf-8", "replace")
