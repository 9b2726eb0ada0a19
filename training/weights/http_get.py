"""The response to one GET, opened within a time limit, by the standard library's client with restrictions.

Only http and https are allowed, and no redirect to another scheme. Without a connection it fails at once or after the
time limit, even if the name resolver would block for minutes.
"""

import http.client
import queue
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPMessage, HTTPResponse
from typing import IO, cast
from urllib.parse import urlsplit

# A silent name server blocked an export for a minute: the resolver has no timeout of its own.
OPEN_TIMEOUT_S = 20.0  # until the head of the answer is there: name, connection, redirects, server
_READ_TIMEOUT_S = 30.0  # without a byte
_CHUNK = 1 << 18  # bytes
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/(?:[0-9]+|\*)")


class Unreachable(Exception):
    """There is no response, or an unusable one. The message is the reason, in a few words."""


class CutOff(Exception):
    """The response ended too early."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A file from some byte on. `version` names this state of it, for `If-Range`, if the server gives it a name."""

    start: int  # bytes left out before the first
    total: int | None  # bytes of the whole file, if the server says so
    version: str | None
    body: HTTPResponse

    def chunks(self, until: float) -> Iterator[bytes]:
        """Yield the received bytes. Raises CutOff if the response ends too early, stalls, or lasts beyond `until`
        (monotonic).
        """
        read = self.start
        try:
            while chunk := self.body.read1(_CHUNK):
                read += len(chunk)
                yield chunk
                if time.monotonic() > until:
                    raise CutOff
        except (OSError, http.client.HTTPException):
            raise CutOff from None
        if self.total is not None and read < self.total:
            raise CutOff

    def close(self) -> None:
        """Close the connection."""
        self.body.close()


def get(url: str, start: int = 0, version: str | None = None) -> Answer:
    """Request a file from byte `start`; the response has its actual first byte. Raises Unreachable."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "resnet-service"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version is not None:
            headers["If-Range"] = version
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise Unreachable("the address is neither http nor https")
        return _answer(_open(urllib.request.Request(url, headers=headers)), start)  # noqa: S310 the scheme is checked
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return get(url)
        raise Unreachable(f"the server answers {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        is_untrusted = isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)
        raise Unreachable("its certificate is not trusted" if is_untrusted else "no connection") from None


class _SameScheme(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            fp.close()
            raise Unreachable(f"the server redirects to another scheme, {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for proxies, http and https, without files, data URLs and FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SameScheme(),
    ):
        opener.add_handler(handler)
    return opener


def _open(request: urllib.request.Request) -> HTTPResponse:
    """Open in a separate thread, because the lookup of a name has no time limit."""
    outcome: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(_open_at_once(request))
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        opened = outcome.get(timeout=OPEN_TIMEOUT_S)
    except queue.Empty:
        raise Unreachable(f"no answer within {OPEN_TIMEOUT_S:.0f} s") from None
    if isinstance(opened, Exception):
        raise opened
    return opened


def _open_at_once(request: urllib.request.Request) -> HTTPResponse:
    return cast(HTTPResponse, _opener().open(request, timeout=_READ_TIMEOUT_S))


def _answer(body: HTTPResponse, requested: int) -> Answer:
    start = 0
    if body.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.fullmatch(body.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != requested:
            body.close()
            raise Unreachable("the server sends another part of the file than was requested")
        start = requested
    elif body.status != http.HTTPStatus.OK:
        body.close()
        raise Unreachable(f"the server answers {body.status}")
    total = None if body.length is None else start + body.length
    return Answer(start, total, _version(body.headers), body)


def _version(headers: Message) -> str | None:
    """Return what `If-Range` may repeat (RFC 9110, 13.1.5): a strong entity tag, or a date."""
    tag = headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")
