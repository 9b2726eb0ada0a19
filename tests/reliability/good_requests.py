"""A good request for each operation and media type of the OpenAPI document, from which the damaged ones are made."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.service.conftest import image

BOUNDARY = b"boundary-of-reliability"
FORM = "multipart/form-data"
JSON = "application/json"
_TENSORS = "application/octet-stream"
_METHODS = ("get", "post", "put", "delete", "patch")
_NAMES = {"model": "tiny", "name": "tiny", "version": "1"}
_IMAGE = image((255, 0, 0))
_BASE64 = base64.b64encode(_IMAGE).decode()
_TENSOR = {"name": "images", "shape": [1, 8, 8, 3], "datatype": "UINT8"}
# The end of a path → its JSON document.
_DOCUMENTS: dict[str, Any] = {
    "/classify/batch": {"images": [_BASE64, {"b64": _BASE64}]},
    "/repository/index": {"ready": True},
    "/infer": {
        "id": "a",
        "inputs": [{**_TENSOR, "data": [1] * 192}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    },
    "/hf/tiny": {"inputs": _BASE64, "parameters": {"top_k": 2}},
    "/v1/embeddings": {"model": "tiny", "input": [_BASE64], "encoding_format": "float"},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path, with one of the media types of its body."""

    method: str
    path: str  # with the names of a model that serves
    template: str
    media_type: str  # empty: it takes no body
    query: tuple[str, ...]
    statuses: frozenset[int]  # that the document has


@dataclass(frozen=True, slots=True)
class Request:
    """A request before it is written as bytes."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    version: bytes = b"HTTP/1.1"
    framing: bytes = field(default=b"length")  # or chunked: the body is written as chunks already

    def wire(self) -> bytes:
        """Return its bytes."""
        size = b"Transfer-Encoding: chunked" if self.framing == b"chunked" else b"Content-Length: %d" % len(self.body)
        lines = [b"%b %b %b" % (self.method, self.target, self.version), *(b"%b: %b" % pair for pair in self.headers)]
        return b"\r\n".join((*lines, *([size] if self.body else ()), b"", self.body))

    def with_header(self, name: bytes, value: bytes) -> "Request":
        """Return it with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """Yield each operation of an OpenAPI document once for each media type that its body may have."""
    for template, methods in document["paths"].items():
        path = template.format(**_NAMES)
        for method in _METHODS:
            if method in methods:
                yield from _of_method(method.upper(), path, template, methods[method])


def _of_method(method: str, path: str, template: str, described: dict[str, Any]) -> Iterator[Operation]:
    query = tuple(one["name"] for one in described.get("parameters", ()) if one["in"] == "query")
    statuses = frozenset(map(int, described["responses"]))
    for media_type in described.get("requestBody", {}).get("content", {"": None}):
        yield Operation(method, path, template, media_type, query, statuses)


def good_request(operation: Operation) -> Request:
    """Return a request with a good body."""
    request = Request(operation.method.encode(), operation.path.encode(), ((b"Host", b"localhost"),))
    if not operation.media_type:
        return request
    if operation.media_type == FORM:
        return form_request(request, form_of(operation.path))
    request = request.with_header(b"Content-Type", operation.media_type.encode())
    if operation.media_type == JSON:
        return replace(request, body=json.dumps(json_of(operation.path)).encode())
    if operation.media_type == _TENSORS and operation.path.startswith("/v2"):
        return _tensor_request(request)
    return replace(request, body=_IMAGE)


def json_of(path: str) -> Any:
    """Return the good JSON document of a path."""
    return next(document for end, document in _DOCUMENTS.items() if path.endswith(end))


def form_of(path: str) -> bytes:
    """Return the good form of a path."""
    count, name = (2, b"files") if path.endswith("/batch") else (1, b"data" if "/predictions/" in path else b"file")
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return (head % (BOUNDARY, name) + _IMAGE + b"\r\n") * count + b"--%b--\r\n" % BOUNDARY


def form_request(request: Request, form: bytes) -> Request:
    """Return a request with this form as its body."""
    return replace(request.with_header(b"Content-Type", b"multipart/form-data; boundary=" + BOUNDARY), body=form)


def _tensor_request(request: Request) -> Request:
    head = json.dumps({"inputs": [{**_TENSOR, "parameters": {"binary_data_size": 192}}]}).encode()
    request = request.with_header(b"Inference-Header-Content-Length", b"%d" % len(head))
    return replace(request, body=head + bytes(192))
