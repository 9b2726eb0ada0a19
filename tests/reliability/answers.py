"""HTTP responses as raw bytes: strictly framed, and checked against the documented failures."""

import json
import re
import socket
from dataclasses import dataclass, field
from typing import Any

from service.api.openapi.failures import FAILURES
from tests.support.servers.served import Served

# Addresses in memory, paths of files, tracebacks, and the names of libraries: no response may have one.
LEAKS = re.compile(
    rb"0x[0-9a-f]{5}|Traceback|site-packages|\.py\b|/(home|usr|tmp|root|proc|work)/|Pillow|libjpeg|libwebp"
)
# Codes beside those of the image endpoints: of V2's compressed bodies, and of model control on the public port.
_FURTHER_CODES = {400: {"bad_encoding", "bad_input"}, 403: {"forbidden"}}
_TIMINGS = ("timings_ms", "id", "created")


class BadFraming(Exception):
    """The bytes are not a response by RFC 9112."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One final response."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body: bytes

    def document(self) -> Any:
        """Return the JSON of the body. Raises ValueError."""
        return json.loads(self.body)

    def fault(self) -> str | None:
        """Return what is wrong with it: a failure that is not documented, or an internal text; None if nothing is."""
        if LEAKS.search(self.body):
            return f"a response reveals internals: {self.body[:200]!r}"
        if self.status < 400:
            return None if 200 <= self.status < 400 else f"status {self.status}"
        return self._fault_of_failure()

    def _fault_of_failure(self) -> str | None:
        if not (self.status in FAILURES or self.status in _FURTHER_CODES) or self.status == 500:
            return f"status {self.status}: {self.body[:200]!r}"
        if self.headers.get("content-length") == "0" or not self.body:
            return None  # of HEAD
        try:
            document = self.document()
        except ValueError:
            return f"status {self.status} without a document: {self.body[:200]!r}"
        return self._fault_of_problem(document) if "problem" in self.headers.get("content-type", "") else None

    def _fault_of_problem(self, document: Any) -> str | None:
        known = {
            *(FAILURES[self.status].codes if self.status in FAILURES else ()),
            *_FURTHER_CODES.get(self.status, ()),
        }
        if document.get("status") != self.status or document.get("code") not in known:
            return f"a problem that is not documented: {document}"
        return None


class Wire:
    """A connection of raw bytes."""

    def __init__(self, served: Served, timeout_s: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", served.port), timeout=timeout_s)
        self._buffer = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, content: bytes) -> None:
        """Send bytes, as many as the server reads: it may refuse and close before the last one."""
        try:
            self._socket.sendall(content)
        except ConnectionError:
            return

    def end(self) -> None:
        """Close the sending half."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def set_timeout(self, seconds: float) -> None:
        """Set the time that a read may take."""
        self._socket.settimeout(seconds)

    def answer(self, *, is_head: bool = False) -> Answer | None:
        """Return the next final response, or None if the server closes before its first byte.

        Raises BadFraming, and TimeoutError with all bytes kept for the next call.
        """
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                return None
            status, headers = _read_head(head)
            if status >= 200:
                return Answer(status, headers, b"" if is_head or status in (204, 304) else self._body(headers))

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._buffer:
            if not self._more():
                if self._buffer:
                    raise BadFraming(f"the connection ends within a head: {self._buffer[:100]!r}")
                return None
        found, self._buffer = self._buffer.split(mark, 1)
        return found

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" not in headers:
            raise BadFraming(f"a response without Content-Length: {headers}")
        size = int(headers["content-length"])
        while len(self._buffer) < size:
            if not self._more():
                raise BadFraming(f"a body of {len(self._buffer)} of {size} bytes")
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return body

    def _more(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.split(b"\r\n")
    found = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [ -~]*", first)
    if found is None:
        raise BadFraming(f"no status line: {first[:100]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not re.fullmatch(rb"[a-zA-Z0-9-]+", name):
            raise BadFraming(f"no header line: {line[:100]!r}")
        headers[name.decode().lower()] = value.strip().decode("latin-1")
    return int(found[1]), headers


def without_timings(document: Any) -> Any:
    """Return a document without what differs between two equal requests."""
    if isinstance(document, dict):
        return {name: without_timings(value) for name, value in document.items() if name not in _TIMINGS}
    return [without_timings(entry) for entry in document] if isinstance(document, list) else document


class Reference:
    """A good request with a known answer, which the server has to repeat after whatever else it was sent."""

    def __init__(self, served: Served, image: bytes, label: str) -> None:
        self._served, self._image = served, image
        status, document = self._ask()
        assert status == 200 and document["predictions"][0]["label"] == label, document
        self._document = document

    def fault(self) -> str | None:
        """Ask again; return how the answer differs, or None."""
        status, document = self._ask()
        return None if document == self._document else f"a good request got {status}: {document}"

    def _ask(self) -> tuple[int, Any]:
        status, document = self._served.ask("POST", "/classify", self._image)
        return status, without_timings(document)


def tracebacks(served: Served) -> list[str]:
    """Return the end of each traceback in the log: there may be none, whatever was sent."""
    return sorted({f"the log has a traceback: {line.strip()[-200:]}" for line in served.log if "Traceback" in line})
