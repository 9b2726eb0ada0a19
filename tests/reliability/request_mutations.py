"""Damaged HTTP requests, each the same for the same case."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from tests.reliability.good_requests import FORM, JSON, Operation, good_request, json_of
from tests.support.image_files.decode_child import MUTATORS

SEED = 20_261_130
MARK = "zq7~mark"  # in paths, headers and bodies, and no valid id: no line of the log may have it
_METHODS = (
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PATCH",
    b"get",
    b"X" * 99,
    b"",
)
_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.10", b"http/1.1", b"HTTP/1", b"HTTP/9.9", b"")
_TARGETS = (
    b"*", b"", b"//", b"/../..", b"/%2e%2e/%2e%2e/etc/passwd", b"/%00", b"/%zz", b"/\xff\xfe",
    b"http://localhost/classify", b"localhost:80", b"/classify#a", b"/classify?", b"/classify?" + b"a" * 70_000,
    b"/" + b"a/" * 3000, b"/models/" + b"a" * 300, b"/v2/models/tiny/versions/0/infer", b"/v2/models//infer",
    b"/V2/MODELS", b"/classify/", b"/models/tiny%0d%0aX: a", f"/{MARK}".encode(),
    b"/v2/models/..%2f..%2ftiny/infer", b"/docs/../models", b"/?a=b&&=;", b"/a b",
)  # fmt: skip
_VALUES = (
    b"", b"0", b"-1", b"1", b"00", b"1.5", b"1e9", b"NaN", b"99999999999999999999999", b"true", b"\x00",
    b"\xff" * 8, b"," * 50, b"tiny", b"tiny:1", b"tiny:0", b"../tiny", b"%00", b"*/*;q=2", b"text/html",
    b"image/png", b"application/json; charset=utf-16", b"multipart/form-data",
    b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"b" * 300, b"gzip", b"br", b"chunked",
    b"gzip, chunked", b"identity", b"100-continue", b"close", b"keep-alive", b"Upgrade, HTTP2-Settings", b"h2c",
    b"websocket", b"localhost, localhost", b"a@b", b"[::1", b"bytes=0-1", MARK.encode(), b"a" * 9000,
    "Ünïcode".encode(), b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00", b"Bearer x",
    b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
    b'W/"a"',
)  # fmt: skip
_NAMES = (
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Content-Type", b"Content-Encoding", b"Accept",
    b"Accept-Encoding", b"Expect", b"Connection", b"Upgrade", b"X-Request-Id", b"X-Request-Timeout-Ms",
    b"traceparent", b"Origin", b"Authorization", b"X-Api-Key", b"X-Forwarded-For",
    b"Inference-Header-Content-Length", b"Range", b"If-None-Match", b"Via", b"Trailer", b"Cookie", b"Keep-Alive",
    b"Access-Control-Request-Method", MARK.encode(), b"", b"a b", b"a\x00b", b"\xff", b"a" * 300, b"X-Real-Ip",
)  # fmt: skip
_EDGES: tuple[Any, ...] = (
    None, True, 0, -1, 2, 1e308, float("nan"), 2**63, 2**64, 10**400, -0.0, "", "a" * 5000, "\0", "\ud800", MARK,
    [], {}, [[]] * 50, [0] * 5000, ["a"] * 100, {"a": {"a": {}}}, "data:image/png;base64,", "http://localhost/a.jpg",
    "====", "UINT8", "BYTES", [1, 8, 8, 3], [-1], [2**62, 2], [0], {"b64": 7}, {"classification": 2**70},
    {"binary_data_size": -5}, {"binary_data": True},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One damaged request."""

    kind: str
    operation: Operation
    wire: bytes
    is_whole: bool  # its framing is right, so that it has to be answered

    @property
    def is_head(self) -> bool:
        """Whether its response has no body."""
        return self.wire.startswith(b"HEAD ")


def mutated_request(case: int, known: Sequence[Operation]) -> Case:
    """Return the damaged request of this number."""
    dice = random.Random(SEED + case)
    kind = dice.choice(list(_KINDS))
    make, has_body = _KINDS[kind]
    operation = dice.choice([one for one in known if has_body(one)])
    return Case(kind, operation, make(operation, dice), kind in ("JSON", "form", "parameters"))


def _request_line(operation: Operation, dice: random.Random) -> bytes:
    request = good_request(operation)
    part = dice.randrange(4)
    if part == 0:
        return replace(request, method=dice.choice(_METHODS)).wire()
    if part == 1:
        return replace(request, version=dice.choice(_VERSIONS)).wire()
    if part == 2:
        return replace(request, target=dice.choice(_TARGETS)).wire()
    line, _, rest = request.wire().partition(b"\r\n")
    return _damaged(line, dice) + dice.choice((b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"")) + rest


def _headers(operation: Operation, dice: random.Random) -> bytes:
    request = good_request(operation)
    headers = list(request.headers)
    for _ in range(dice.choice((1, 1, 2, 5))):
        _change_headers(headers, dice)
    if dice.random() < 0.05:
        headers += [(b"X-%d" % number, b"a") for number in range(dice.choice((200, 260, 2000)))]
    method = b"HEAD" if dice.random() < 0.05 else request.method
    return replace(request, method=method, headers=tuple(headers)).wire()


def _change_headers(headers: list[tuple[bytes, bytes]], dice: random.Random) -> None:
    place = dice.randrange(len(headers)) if headers else -1
    action = dice.choice(("add", "add", "add", "drop", "repeat", "value", "line"))
    if action == "drop" and headers:
        del headers[place]
    elif action == "repeat" and headers:
        headers.insert(place, headers[place])
    elif action == "value" and headers:
        headers[place] = (headers[place][0], dice.choice(_VALUES))
    elif action == "line":
        headers.append((_damaged(dice.choice(_NAMES), dice), _damaged(dice.choice(_VALUES), dice)))
    else:
        headers.append((dice.choice(_NAMES), dice.choice(_VALUES)))


def _chunks(operation: Operation, dice: random.Random) -> bytes:
    request = good_request(operation)
    body, pieces, place = request.body, [], 0
    most = dice.choice((1, 7, 200, 5000))
    while place < len(body):
        size = dice.randint(1, most)
        pieces.append(_chunk(body[place : place + size], dice))
        place += size
    pieces.append(
        dice.choice(
            (b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX-Trailer: a\r\n\r\n", b"0\r\n", b"", b"0;a=b\n\n")
        )
    )
    return replace(request, body=b"".join(pieces), framing=b"chunked").wire()


def _chunk(piece: bytes, dice: random.Random) -> bytes:
    size = b"%x" % len(piece)
    if dice.random() < 0.03:
        size = dice.choice(
            (
                b"-1",
                b"0",
                b"",
                b"g",
                b"ffffffffffffffff",
                b"fffffffffffffffff",
                b"0x5",
                b" 5",
                b"5 ",
                b"+5",
                b"5;" + b"a" * 70_000,
            )
        )
    return size + dice.choice((b"", b"", b"", b";a=b")) + b"\r\n" + piece + (b"\r\n" if dice.random() > 0.01 else b"")


def _form(operation: Operation, dice: random.Random) -> bytes:
    request = good_request(operation)
    body = request.body
    if dice.random() < 0.5:
        head, mark, rest = body.partition(b"\r\n\r\n")
        body = _damaged(head, dice) + mark + rest
    else:
        body = _damaged(body, dice)
    return replace(request, body=body or b"-").wire()


def _json(operation: Operation, dice: random.Random) -> bytes:
    document = json.loads(json.dumps(json_of(operation.path)))
    for _ in range(dice.choice((1, 1, 2, 4))):
        document = _changed(document, dice)
    body = json.dumps(document).encode()
    if dice.random() < 0.3:
        body = _damaged(body, dice)
    return replace(good_request(operation), body=body or b" ").wire()


def _changed(value: Any, dice: random.Random) -> Any:
    """Return a document with one part of it replaced, removed, repeated, renamed or nested."""
    if not isinstance(value, (dict, list)) or not value or dice.random() < 0.2:
        edge = copy.deepcopy(dice.choice(_EDGES))
        for _ in range(dice.choice((0, 0, 0, 1, 40))):
            edge = [edge]
        return edge
    keys = list(value) if isinstance(value, dict) else list(range(min(len(value), 9)))
    key = dice.choice(keys)
    action = dice.choice(("inside", "inside", "inside", "drop", "add"))
    if action == "inside":
        value[key] = _changed(value[key], dice)
    elif action == "drop":
        del value[key]
    elif isinstance(value, dict):
        value[dice.choice((MARK, "", "\ud800", "data", "parameters", "inputs", "images"))] = copy.deepcopy(
            dice.choice(_EDGES)
        )
    else:
        value.extend(value[:70])
    return value


def _parameters(operation: Operation, dice: random.Random) -> bytes:
    request = good_request(operation)
    names = [*operation.query, MARK, "top_k", ""]
    pairs = [
        quote(dice.choice(names), safe="")
        + dice.choice(("=", "=", "==", ""))
        + quote(dice.choice(_VALUES[:22]), safe=";&=")
        for _ in range(dice.choice((1, 1, 2, 3, 40)))
    ]
    return replace(request, target=request.target + b"?" + "&".join(pairs).encode()).wire()


def _bytes(operation: Operation, dice: random.Random) -> bytes:
    wire = good_request(operation).wire() * dice.choice((1, 1, 3))
    return _damaged(wire, dice) or b"\r\n"


def _damaged(content: bytes, dice: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4))):
        dice.choice(MUTATORS)(data, dice, [content, _SPLICES])
    return bytes(data)


_SPLICES = b'\r\n\r\n--\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n: ;="\\\x00\xff\t{}[]",'


def _any(_: Operation) -> bool:
    return True


def _takes_a_body(operation: Operation) -> bool:
    return bool(operation.media_type)


_KINDS: dict[str, tuple[Callable[[Operation, random.Random], bytes], Callable[[Operation], bool]]] = {
    "request line": (_request_line, _any),
    "headers": (_headers, _any),
    "chunks": (_chunks, _takes_a_body),
    "form": (_form, lambda operation: operation.media_type == FORM),
    "JSON": (_json, lambda operation: operation.media_type == JSON),
    "parameters": (_parameters, _any),
    "bytes": (_bytes, _any),
}
KINDS = tuple(_KINDS)
