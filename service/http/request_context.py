"""One request and its response: limits of the body, headers of the response, and the end of the exchange.

Closing a connection with unread bytes resets it, and the client may never see a response that was sent before the body
was read. Reading the whole body would defeat the purpose of a refusal. The server therefore reads and discards a small
part, waits up to a second for the client to read the response, and then closes the connection. The HTTP server skips
the rest of a small body and keeps the connection.
"""

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.batching.jobs import IsAwaited
from service.errors import BadRequest
from service.http.client_connection import connection_of
from service.http.trace_headers import request_id, traceparent
from service.http.upload_limits import BodyLimit, UploadMemory
from service.telemetry.durations import hundredths

if TYPE_CHECKING:  # the supervisor uses this module as well, but must not import an engine
    from service.inference.results import Classification, ModelInfo

LINGER_BYTES = 64 * 1024
# The largest rest of a body that is skipped after a refusal, so that the connection stays open. A client on an open
# connection can be delayed, but a client that has to reconnect retries at once. Most photos are smaller.
SKIPPED_BYTES = 512 * 1024
LINGER_S = 1.0

MOST_TIMEOUT_MS = 3_600_000
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CLOSE = (b"connection", b"close")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_NOT_STORED = (b"cache-control", b"no-store")
_STEPS = b"decode;dur=%d.%02d, queue;dur=%d.%02d, inference;dur=%d.%02d, "
_DRAWN, _TOTAL = b"draw;dur=%d.%02d, ", b"total;dur=%d.%02d"
_TIMINGS, _TIMINGS_OF_DRAWN = _STEPS + _TOTAL, _STEPS + _DRAWN + _TOTAL

_NO_BODY = BodyLimit(0, 0)
Headers = Iterable[tuple[bytes, bytes]]


def is_length(value: bytes) -> bool:
    """Return whether a header's value is a valid Content-Length."""
    return _DIGITS.fullmatch(value) is not None


def is_timeout_ms(value: bytes) -> bool:
    """Return whether a header's value is a valid X-Request-Timeout-Ms."""
    return _DIGITS.fullmatch(value) is not None and 1 <= int(value) <= MOST_TIMEOUT_MS


class RequestContext:
    """The state of one request; wraps its ASGI `receive` and `send`."""

    __slots__ = (
        "_body_ended",
        "_can_be_answered",
        "_closes",
        "_delays_others",
        "_is_last",
        "_limit",
        "_memory",
        "_receive",
        "_reserved",
        "_send",
        "bytes_in",
        "bytes_out",
        "client",
        "client_has_left",
        "connection",
        "decode_s",
        "draw_s",
        "expires_at",
        "extra_headers",
        "failure",
        "headers",
        "images",
        "inference_s",
        "is_form",
        "lingers",
        "model",
        "queue_s",
        "received_at",
        "request_id",
        "started_at",
        "status",
        "traced_images",
        "traceparent",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        memory: UploadMemory,
        *,
        is_last: bool,
        delays_others: Callable[[IsAwaited], bool] = lambda _: False,
    ) -> None:
        self.connection = connection_of(scope)
        self._receive = receive
        self._send = send
        self._memory = memory
        self._is_last = is_last  # the response closes the connection: the server drains, or the connection is old
        self._limit = _NO_BODY
        self._reserved = 0
        self._closes = False
        self.headers = joined(scope["headers"])
        self._body_ended = b"content-length" not in self.headers and b"transfer-encoding" not in self.headers
        # Whether the body is a multipart form rather than the image itself.
        self.is_form = self.headers.get(b"content-type", b"")[:10].lower() == b"multipart/"
        self.client_has_left = self.connection.has_left  # may be called from any thread
        self._delays_others = delays_others
        self._can_be_answered = self.connection.can_be_answered
        self.expires_at = math.inf  # the client's deadline, in monotonic seconds
        self.lingers = True  # after an early response; false when the process is about to end
        self.status: int | None = None  # of the response, once it has begun
        self.failure: str | None = None  # the error code of a known failure
        self.extra_headers: list[tuple[bytes, bytes]] = []  # of the response
        self.started_at = time.monotonic()
        self.request_id = request_id(self.headers.get(b"x-request-id"))
        self.traceparent = traceparent(self.headers.get(b"traceparent"))
        self.client: str | None = None  # its address
        self.bytes_in = self.bytes_out = 0  # of the bodies
        # The number of classified images, and the longest time that any of them took for each step.
        self.model: ModelInfo | None = None
        self.images = 0
        self.decode_s = self.queue_s = self.inference_s = 0.0
        self.draw_s: float | None = None  # time of rendering the images of the response
        self.traced_images: list[Classification] | None = None  # None: the request is not traced
        self.received_at: float | None = None  # the end of its body, if it is traced

    def is_awaited(self) -> bool | None:
        """Return whether the client waits for its response; None if unknown: it sends no more."""
        if not self.client_has_left():
            return True
        return None if self._can_be_answered() else False

    def delays_others(self) -> bool:
        """Return whether images of this request are queued, and images of other requests as well.

        In this case a client that has closed its sending half counts as disconnected.
        """
        return self._delays_others(self.is_awaited)

    def check_length(self) -> None:
        """Raise BadRequest if Content-Length is not a number."""
        declared = self.headers.get(b"content-length")
        if declared is None:
            return
        if not is_length(declared):
            raise BadRequest("Content-Length must be a number.", code="bad_content_length")
        self._body_ended = declared == b"0"

    def read_deadline(self) -> None:
        """Set `expires_at` from X-Request-Timeout-Ms, counted from now. Raises BadRequest."""
        declared = self.headers.get(b"x-request-timeout-ms")
        if declared is None:
            return
        if not is_timeout_ms(declared):
            raise BadRequest(
                f"X-Request-Timeout-Ms must be a whole number from 1 to {MOST_TIMEOUT_MS}.", code="bad_timeout"
            )
        self.expires_at = time.monotonic() + int(declared) / 1000

    def expect_body(self, limit: BodyLimit) -> None:
        """Allow a body up to `limit`; without this call, `receive` refuses any body.

        A body above the limit is refused at once if its length is declared, else as soon as the limit is exceeded.
        Raises TooLarge.
        """
        self._limit = limit
        self._check_size(int(self.headers.get(b"content-length", b"0")))

    def _check_size(self, size: int) -> None:
        if size > self._limit.most_bytes + (self._limit.form_bytes if self.is_form else 0):
            raise self._limit.refusal(self._limit.most_bytes)

    async def receive(self) -> Message:
        """Return the next ASGI message. Raises TooLarge above the limit, Overloaded above the limit of all bodies."""
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.bytes_in += size
            self._body_ended = not message.get("more_body", False)
            if self.traced_images is not None and self._body_ended:
                self.received_at = time.monotonic()
            self._memory.take(size, self.bytes_in + self._reserved)
            self._check_size(self.bytes_in)
        else:
            self._body_ended = True  # the client has disconnected
        return message

    async def send(self, message: Message) -> None:
        """Send one ASGI message of a response; after the last one, discard the rest of the request."""
        if message["type"] == "http.response.start":
            headers = self._begin_answer(message["status"], message.get("headers", ()))
            await self._send({**message, "headers": headers})
            return
        self.bytes_out += len(message.get("body", b""))
        if self._closes and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            if self.lingers:
                await self._linger()
            await self._send({"type": "http.response.body"})
        else:
            await self._send(message)

    async def answer(self, response: Response) -> None:
        """Send a whole response."""
        await self.send_answer(response.status_code, response.raw_headers, bytes(response.body))

    async def send_answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response, whose headers include Content-Length.

        One write of the connection takes half the time of two ASGI messages, so it is preferred where possible.
        """
        complete = self._begin_answer(status, headers)
        send_whole = None if self._closes or self._is_last else self.connection.send_whole
        if send_whole is not None and send_whole(status, complete, body):
            self.bytes_out += len(body)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": complete})
        await self.send({"type": "http.response.body", "body": body})

    def _begin_answer(self, status: int, headers: Headers) -> list[tuple[bytes, bytes]]:
        self.status = status
        self._is_last = self._is_last or self.connection.is_last()
        self._closes = not self._body_ended and not self._rest_is_small()
        return self._complete(headers)

    def note_image(self, model: "ModelInfo", classification: "Classification") -> None:
        """Record the model and the timings of one classified image."""
        self.model = model
        self.images += 1
        self.decode_s = max(self.decode_s, classification.decode_s)
        self.queue_s = max(self.queue_s, classification.queue_s)
        self.inference_s = max(self.inference_s, classification.inference_s)
        if self.traced_images is not None:
            self.traced_images.append(classification)

    def reserve(self, size: int) -> None:
        """Count memory that the request takes beyond its body's bytes. Raises Overloaded above the limit."""
        self._reserved += size
        self._memory.take(size, self.bytes_in + self._reserved)

    def release_body(self) -> None:
        """Return the memory of a completed request's body to the limit of all bodies."""
        self._memory.used_bytes -= self.bytes_in + self._reserved

    def _complete(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        complete = [*headers, _NO_SNIFFING, (b"x-request-id", self.request_id), (b"server-timing", self._timing())]
        complete += self.extra_headers
        if self.traceparent is not None:
            complete.append((b"traceparent", self.traceparent))
        if not any(name == b"cache-control" for name, _ in complete):
            complete.append(_NOT_STORED)
        if self._closes or self._is_last:
            complete.append(_CLOSE)
        return complete

    def _timing(self) -> bytes:
        total = hundredths(time.monotonic() - self.started_at)
        if not self.images:
            return _TOTAL % total
        steps = (*hundredths(self.decode_s), *hundredths(self.queue_s), *hundredths(self.inference_s))
        if self.draw_s is not None:
            return _TIMINGS_OF_DRAWN % (*steps, *hundredths(self.draw_s), *total)
        return _TIMINGS % (*steps, *total)

    def _rest_is_small(self) -> bool:
        declared = self.headers.get(b"content-length")
        return (
            declared is not None
            and is_length(declared)
            and int(declared) - self.bytes_in <= SKIPPED_BYTES
            and b"expect" not in self.headers  # the client may never send the body
        )

    async def _linger(self) -> None:
        discarded = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while discarded < LINGER_BYTES:
                    message = await self._receive()
                    if not message.get("more_body", False):
                        return
                    discarded += len(message["body"])
                await asyncio.Event().wait()  # until the timeout, so that the client can read the response


def joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name; lines of the same name are joined by commas (RFC 9110, section 5.3)."""
    last = dict(headers)
    if len(last) == len(headers):
        return last
    values: dict[bytes, list[bytes]] = {name: [] for name in last}
    for name, value in headers:
        values[name].append(value)
    return {name: b", ".join(several) for name, several in values.items()}
