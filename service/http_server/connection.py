"""One HTTP connection: uvicorn's protocol with timeouts, head limits and early refusals.

Neither uvicorn nor httptools limits the size of a head. httptools copies an unfinished header for each read, so 31 MB
of one header cost 1.4 s of the event loop; `parser.py` counts the bytes of a head. `client_timeouts.py` limits the time
that a client takes. While the queue is full, requests are refused from their heads (`overload.py`). A client that
repeats a refused request at once is delayed, so that it does not use the CPU time of other clients.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.http.client_connection import ClientConnection, connection_of, put_connection
from service.http.request_context import joined
from service.http.trace_headers import request_id
from service.http_server.client_timeouts import TimedProtocol
from service.http_server.early_errors import CorsHeaders, ProtocolError, no_cors_headers, without_content
from service.http_server.overload import OverloadControl
from service.http_server.parser import Part

_DISCARD_BYTES = 64 * 1024  # read after a refusal: closing on unread bytes would reset the connection
_DISCARD_S = 1.0
_BODY = Part.BODY


# Called for bytes that are refused before they form a request: status, error code, new request id, client address.
OnRejected = Callable[[int, str, bytes, str | None], None]


def ignore_rejected(_status: int, _code: str, _identity: bytes, _client: str | None) -> None:
    """Ignore a rejection: the default `OnRejected`."""


class Connection(TimedProtocol):
    """The protocol of one client connection."""

    def __init__(
        self,
        *arguments: Any,
        on_lost: Callable[[], None] = lambda: None,
        on_rejected: OnRejected = ignore_rejected,
        overload: OverloadControl | None = None,
        cors_headers: CorsHeaders = no_cors_headers,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._on_lost = on_lost
        self._on_rejected = on_rejected
        self._is_refusal_sent = False
        self._discarded = 0
        self._overload = overload
        self._cors_headers = cors_headers
        self._refused_at = -math.inf  # monotonic seconds
        self._was_late = False  # the last refusal was for the client's deadline, not for capacity

    @property
    def awaits_first_request(self) -> bool:
        """Whether the client has connected and not sent the first byte of a request yet."""
        return not self._has_requested

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers and report the end of the connection."""
        super().connection_lost(exc)
        self._on_lost()

    def on_message_begin(self) -> None:
        """Start the timeout of a request's head."""
        super().on_message_begin()
        self._part_began = self.loop.time()
        self._has_requested = True

    def on_headers_complete(self) -> None:
        """Start the request, and put this connection into its ASGI scope."""
        super().on_headers_complete()
        if self._part is not _BODY:
            return  # an Upgrade header that is ignored
        self._part_began = self.loop.time()
        self._cancel_read_timer()
        send_whole = partial(self._send_whole, self.cycle)
        connection = ClientConnection(self._has_left, self._can_be_answered, send_whole)
        if self._last_from < math.inf:
            connection.is_last = self._is_last
        put_connection(self.scope, connection)  # type: ignore[arg-type]

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether to keep the connection: responses are due, and the request does not delay other clients."""
        self._has_ended = True
        return self._is_due() and not (self._is_answering and connection_of(self.cycle.scope).delays_others())  # type: ignore[arg-type]

    def _has_left(self) -> bool:
        """Return whether the client has closed the connection or its sending half, which look the same."""
        return self._has_ended or self.transport.is_closing()

    def _can_be_answered(self) -> bool:
        return not self.transport.is_closing()

    def _is_last(self) -> bool:
        """Return whether the connection has reached its age, and no further request has arrived."""
        return self.loop.time() >= self._last_from and not self._unparsed and not self.pipeline

    def _send_whole(
        self, cycle: RequestResponseCycle, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Write a whole response at once; return False if uvicorn has to send this one in parts."""
        is_special = cycle.disconnected or cycle.response_started or not cycle.keep_alive or self.flow.write_paused
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        head = b"".join((STATUS_LINE[status], *lines, b"\r\n"))
        if is_special or cycle.scope["method"] == "HEAD" or head.count(b"\n") != len(lines) + 2:
            return False
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(head + body)
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_message_complete(self) -> None:
        """End a request, and start the timeout of the next head."""
        super().on_message_complete()
        self._part_began = self.loop.time()

    def on_response_complete(self) -> None:
        """Continue with the next request, or send the refusal that waited for this response."""
        super().on_response_complete()
        if self._refusal is not None:
            self._send_refusal_in_turn()
        elif (reason := connection_of(self.cycle.scope).refused_for) is not None:  # type: ignore[arg-type]
            self._refused_at, self._was_late = time.monotonic(), reason == "deadline"
        self._update_timers()

    def data_received(self, data: bytes) -> None:
        """Parse the data, unless it begins a request for which there is no capacity."""
        if self._overload is None or not self._is_between_requests() or not self._refuse_early(data, self._overload):
            super().data_received(data)

    def _is_between_requests(self) -> bool:
        """Return whether all requests have their responses, and no byte of a next one has arrived."""
        return self._is_before_head() and not self._unparsed and not self._is_answering and self._refusal is None

    def _refuse_early(self, data: bytes, overload: OverloadControl) -> bool:
        """Refuse or delay a request that has just arrived; return False if it may be parsed."""
        now = time.monotonic()
        retries_at_once = now - self._refused_at < overload.immediate_retry_s
        if not (retries_at_once and self._was_late) and overload.has_capacity(now):
            overload.count_admitted(self.loop)
            return False
        if retries_at_once and overload.pause(self.loop, self, for_deadline=self._was_late):
            self._is_paused = True
            self._idle.pop(self, None)
            self._keep(data, 0)
            return True
        return self._respond_early(data, overload)

    def _respond_early(self, data: bytes, overload: OverloadControl) -> bool:
        if self.flow.write_paused or self.transport.is_closing():
            return False
        is_last = self.loop.time() >= self._last_from
        refusal = overload.refusal(data, self.server_state.default_headers, is_last=is_last)
        if refusal is None:
            return False
        response, closes = refusal
        self.transport.write(response)
        self._refused_at, self._was_late = time.monotonic(), False
        overload.note_refusal(self.loop, self._refused_at)
        self._has_requested = True
        if closes:
            self.transport.close()
        if self._unparsed:
            self._keep(b"", 0)
        self._idle.pop(self, None)  # `_update_timers` adds it at the end
        self._update_timers()
        return True

    def end_pause(self) -> None:
        """Handle the delayed request: refuse it if there is still no capacity, else queue it for parsing."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self.transport.is_closing() or self._refusal is not None:
            return
        if not self._refuse_unparsed():
            self._wait_for_turn()

    def _take_turn(self) -> None:
        self._is_queued = False
        if self._refuse_unparsed():
            return
        if self._overload is not None and self._part is Part.NONE and self._unparsed:
            self._overload.count_admitted(self.loop)
        super()._take_turn()

    def _refuse_unparsed(self) -> bool:
        """Refuse the unparsed request if there is no capacity; return whether it was refused."""
        is_request = bool(self._unparsed) and self._is_before_head() and self._may_parse()
        if self._overload is None or not is_request or self._overload.has_capacity(time.monotonic()):
            return False
        return self._respond_early(self._unparsed[self._at :], self._overload)

    def shutdown(self) -> None:
        """Close the connection after the responses to all requests that have arrived."""
        self._is_paused = False
        super().shutdown()

    def _refuse(self, refusal: ProtocolError) -> None:
        """Send one error response after the responses that are due, unless the request already has a response."""
        is_first = self._refusal is None
        super()._refuse(refusal)
        if is_first and self._part is _BODY and self.cycle.response_started:
            self.transport.close()
        elif is_first:
            self._send_refusal_in_turn()

    def _send_refusal_in_turn(self) -> None:
        """Send the refusal, unless an earlier request has no complete response yet."""
        is_next = not self.pipeline and (self._part is _BODY or not self._is_answering)
        if self._refusal is None or not is_next or self._is_refusal_sent or self.transport.is_closing():
            return
        self._is_refusal_sent = True
        path = getattr(self, "url", b"").partition(b"?")[0]  # the part that has arrived
        identity = request_id(None)
        headers = {} if self._part is Part.NONE else joined(self.headers)  # those that have arrived
        response = self._refusal.answer(path.decode("latin-1"), identity, self._cors_headers(headers))
        is_head = self._part is not Part.NONE and self.parser.get_method() == b"HEAD"
        self.transport.write(without_content(response) if is_head else response)
        self._on_rejected(self._refusal.status, self._refusal.code, identity, self.client[0] if self.client else None)
        self.loop.call_later(_DISCARD_S, self.transport.close)

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _DISCARD_BYTES:
            self.flow.pause_reading()  # the client can read the response until the connection closes
