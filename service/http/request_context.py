"""One request and its answer on the wire: how much of the body was read, what was sent, and how it ends.

An answer that goes out before the body was read has a problem: closing a connection with unread bytes resets it, and
the client may never see the answer; reading them all is what a refusal wants to avoid. So a little is read and
discarded, the client gets a moment to look, and then the connection closes. (A body that is small is left to the HTTP
server, which skips it and keeps the connection.)
"""

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.batching.jobs import IsAwaited
from service.errors import BadRequest, Overloaded, TooLarge, image_too_large
from service.http.client_connection import connection_of
from service.http.trace_headers import request_id, traceparent
from service.telemetry.durations import hundredths

if TYPE_CHECKING:  # the supervisor's admission has exchanges, too, but no engine
    from service.inference.classifier import Classification, ModelInfo

FORM_BYTES = 64 * 1024  # what a form may add around its file
LINGER_BYTES = 64 * 1024
# What is left of a body after a refusal may be so large, and is skipped: a client that kept its connection can be left
# unheard for a moment, one that has to connect anew comes back at once. Photos are smaller.
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


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """How large a request's body may be, and how a larger one is refused."""

    most_bytes: int
    form_bytes: int = FORM_BYTES  # what a form may have beyond that
    refusal: Callable[[int], TooLarge] = image_too_large
    methods: frozenset[str] = frozenset(("POST",))  # whose bodies are accepted


_NO_BODY = BodyLimit(0, 0)
Headers = Iterable[tuple[bytes, bytes]]


class UploadMemory:
    """What the bodies of all requests together may take: many uploads at once shall not end the process.

    A request is measured by what the others hold, so that one that is alone always finds room, up to its own limit.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.held_bytes = 0

    def set_limit(self, most_bytes: int) -> None:
        """Replace the limit, once it is known how many processes share it."""
        self._most_bytes = most_bytes

    def take(self, size: int, own: int) -> None:
        """Count bytes of a request that now holds `own` of them. Raises Overloaded if the others hold too many."""
        self.held_bytes += size
        if self.held_bytes - own > self._most_bytes:
            raise Overloaded("Too many uploads are going on already; try again a little later.", retry_after_s=1)


class RequestContext:
    """Wraps the `receive` and `send` of one request."""

    __slots__ = (
        "_body_ended",
        "_can_be_answered",
        "_closes",
        "_held",
        "_is_in_the_way",
        "_is_last",
        "_limit",
        "_memory",
        "_receive",
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
        "request_id",
        "started_at",
        "status",
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
        is_in_the_way: Callable[[IsAwaited], bool] = lambda _: False,
    ) -> None:
        self.connection = connection_of(scope)
        self._receive = receive
        self._send = send
        self._memory = memory
        self._is_last = is_last  # the server drains: the connection shall not be used again
        self._limit = _NO_BODY
        self._held = 0
        self._closes = False
        self.headers = _joined(scope["headers"])
        self._body_ended = b"content-length" not in self.headers and b"transfer-encoding" not in self.headers
        # Whether the body says that it is a form, not the image itself.
        self.is_form = self.headers.get(b"content-type", b"")[:10].lower() == b"multipart/"
        self.client_has_left = self.connection.has_left  # may be called from any thread
        self._is_in_the_way = is_in_the_way
        self._can_be_answered = self.connection.can_be_answered
        self.expires_at = math.inf  # the client's own limit, in monotonic seconds
        self.lingers = True  # after an early answer; not when the process is about to end
        self.status: int | None = None  # of the answer, once it has begun
        self.failure: str | None = None  # its code, if we know it
        self.extra_headers: list[tuple[bytes, bytes]] = []  # of the answer
        self.started_at = time.monotonic()
        self.request_id = request_id(self.headers.get(b"x-request-id"))
        self.traceparent = traceparent(self.headers.get(b"traceparent"))
        self.client: str | None = None  # its address
        self.bytes_in = self.bytes_out = 0  # of the bodies
        # What was done: the images that got answers, and the longest that any of them took for each step.
        self.model: ModelInfo | None = None
        self.images = 0
        self.decode_s = self.queue_s = self.inference_s = 0.0
        self.draw_s: float | None = None  # what making images of the answer took

    def is_awaited(self) -> bool | None:
        """Return whether the client waits for its answer; None if it sends no more, which may mean either."""
        if not self.client_has_left():
            return True
        return None if self._can_be_answered() else False

    def is_in_the_way(self) -> bool:
        """Return whether images of this request wait, and those of others too.

        A client that sends no more then counts as one that has left.
        """
        return self._is_in_the_way(self.is_awaited)

    def check_length(self) -> None:
        """Raise BadRequest if the body's declared length is no number."""
        declared = self.headers.get(b"content-length")
        if declared is None:
            return
        if _DIGITS.fullmatch(declared) is None:
            raise BadRequest("Content-Length must be a number.", code="bad_content_length")
        self._body_ended = declared == b"0"

    def read_deadline(self) -> None:
        """Set `expires_at` from X-Request-Timeout-Ms, counted from now. Raises BadRequest."""
        declared = self.headers.get(b"x-request-timeout-ms")
        if declared is None:
            return
        if _DIGITS.fullmatch(declared) is None or not 1 <= int(declared) <= MOST_TIMEOUT_MS:
            raise BadRequest(
                f"X-Request-Timeout-Ms must be a whole number from 1 to {MOST_TIMEOUT_MS}.", code="bad_timeout"
            )
        self.expires_at = time.monotonic() + int(declared) / 1000

    def expect_body(self, limit: BodyLimit) -> None:
        """Let a body in: without this, who reads one is refused.

        A body above the limit is refused at once if its length is declared, else as soon as that much was read.
        Raises TooLarge.
        """
        self._limit = limit
        self._check_size(int(self.headers.get(b"content-length", b"0")))

    def _check_size(self, size: int) -> None:
        if size > self._limit.most_bytes + (self._limit.form_bytes if self.is_form else 0):
            raise self._limit.refusal(self._limit.most_bytes)

    async def receive(self) -> Message:
        """Pass on what the client sends. Raises TooLarge for more than the limit, Overloaded for want of memory."""
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.bytes_in += size
            self._body_ended = not message.get("more_body", False)
            self._memory.take(size, self.bytes_in + self._held)
            self._check_size(self.bytes_in)
        else:
            self._body_ended = True  # the client has gone
        return message

    async def send(self, message: Message) -> None:
        """Pass on an answer in parts; at its end, see to what is left of the request."""
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
        """Send a whole answer."""
        await self.send_answer(response.status_code, response.raw_headers, bytes(response.body))

    async def send_answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer, whose headers tell its length, in one piece if the connection can: half the work."""
        complete = self._begin_answer(status, headers)
        send_whole = None if self._closes or self._is_last else self.connection.send_whole
        if send_whole is not None and send_whole(status, complete, body):
            self.bytes_out += len(body)
            return
        await self._send({"type": "http.response.start", "status": status, "headers": complete})
        await self.send({"type": "http.response.body", "body": body})

    def _begin_answer(self, status: int, headers: Headers) -> list[tuple[bytes, bytes]]:
        self.status = status
        self._closes = not self._body_ended and not self._rest_is_small()
        return self._complete(headers)

    def note_image(self, model: "ModelInfo", classification: "Classification") -> None:
        """Note that a model has answered one image of this request."""
        self.model = model
        self.images += 1
        self.decode_s = max(self.decode_s, classification.decode_s)
        self.queue_s = max(self.queue_s, classification.queue_s)
        self.inference_s = max(self.inference_s, classification.inference_s)

    def hold(self, size: int) -> None:
        """Count memory that the body takes beyond its own bytes. Raises Overloaded if that is too much."""
        self._held += size
        self._memory.take(size, self.bytes_in + self._held)

    def forget_body(self) -> None:
        """Give the memory of the body back: the request is over."""
        self._memory.held_bytes -= self.bytes_in + self._held

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
            and _DIGITS.fullmatch(declared) is not None
            and int(declared) - self.bytes_in <= SKIPPED_BYTES
            and b"expect" not in self.headers  # the client may never send it
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
                await asyncio.Event().wait()  # read no more, but leave the client its moment


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name; lines of the same name are one list, as HTTP has it (RFC 9110, section 5.3)."""
    last = dict(headers)
    if len(last) == len(headers):
        return last
    values: dict[bytes, list[bytes]] = {name: [] for name in last}
    for name, value in headers:
        values[name].append(value)
    return {name: b", ".join(several) for name, several in values.items()}
