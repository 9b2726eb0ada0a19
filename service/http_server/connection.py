"""uvicorn's HTTP protocol, with limits on what a client may send and how long it may take.

Neither uvicorn nor its parser limits a head, and the parser copies an unfinished header anew for each piece that comes:
31 MB of one header cost 1.4 s on the event loop. So bytes are counted until the head is complete. Nor does uvicorn
limit how slowly a request comes, or a response is read. Requests that find no capacity are refused from their heads
(`overload.py`); a client that repeats its request at once waits, so that it does not use the CPU time of the others.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.http.client_connection import ClientConnection, connection_of, put_connection
from service.http.trace_headers import request_id
from service.http_server.early_errors import TOO_SLOW, ProtocolError
from service.http_server.overload import OverloadControl
from service.http_server.parser import ParsingProtocol, Part

_DISCARD_BYTES = 64 * 1024  # read after a refusal, so that the client sees it and not a reset
_DISCARD_S = 1.0
_BODY = Part.BODY


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """How long a client may take."""

    head_s: float = 5.0  # from connecting, or from the first byte of a later request, to the end of its headers
    body_s: float = 30.0  # for the whole body
    body_start_s: float = 5.0  # until the body has to have come at the least rate
    least_bytes_per_s: int = 16 * 1024
    reading_s: float = 30.0  # for the client to take what was sent, once the buffers are full


# Told of what was refused before it became a request: status, code, its new id, and who sent it.
OnRejected = Callable[[int, str, bytes, str | None], None]


def ignore_unread(_status: int, _code: str, _identity: bytes, _client: str | None) -> None:
    """Do nothing about it."""


class Connection(ParsingProtocol):
    """One client's connection."""

    def __init__(
        self,
        *arguments: Any,
        patience: ClientTimeouts | None = None,
        on_lost: Callable[[], None] = lambda: None,
        on_unread: OnRejected = ignore_unread,
        overload: OverloadControl | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._on_lost = on_lost
        self._on_unread = on_unread
        self._patience = patience or ClientTimeouts()
        self._part_began = 0.0
        self._reading_limit: asyncio.TimerHandle | None = None
        self._writing_limit: asyncio.TimerHandle | None = None
        self._idle_limit: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._is_refusal_sent = False
        self._discarded = 0
        self._overload = overload
        self._has_requested = False
        self._refused_at = -math.inf  # monotonic seconds
        self._was_late = False  # the last refusal was for the client's deadline, not for capacity

    @property
    def is_silent(self) -> bool:
        """Whether the client has connected and not asked for anything yet."""
        return not self._has_requested

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._idle[self] = None
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waiting."""
        super().connection_lost(exc)
        self._idle.pop(self, None)
        if self._idle_limit is not None:
            self._idle_limit.cancel()
        self._end_reading_limit()
        if self._writing_limit is not None:
            self._writing_limit.cancel()
        self._on_lost()

    def on_message_begin(self) -> None:
        """Begin the head of a request."""
        super().on_message_begin()
        self._part_began = self.loop.time()
        self._has_requested = True

    def on_headers_complete(self) -> None:
        """Begin a request."""
        super().on_headers_complete()
        if self._part is not _BODY:
            return  # an upgrade that is ignored
        self._part_began = self.loop.time()
        self._end_reading_limit()
        send_whole = partial(self._send_whole, self.cycle)
        put_connection(self.scope, ClientConnection(self._has_left, self._can_be_answered, send_whole))  # type: ignore[arg-type]

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection if answers to whole requests are due, and the client is not in the way of others."""
        self._has_ended = True
        return self._is_due() and not (self._is_answering and connection_of(self.cycle.scope).is_in_the_way())  # type: ignore[arg-type]

    def _has_left(self) -> bool:
        """Whether the client has left, as far as can be seen: it may only have closed its sending half."""
        return self._has_ended or self.transport.is_closing()

    def _can_be_answered(self) -> bool:
        return not self.transport.is_closing()

    def _send_whole(
        self, cycle: RequestResponseCycle, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bool:
        """Do at once what uvicorn does for the two parts of an answer; False if this one needs its care."""
        needs_care = cycle.disconnected or cycle.response_started or not cycle.keep_alive or self.flow.write_paused
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        head = b"".join((STATUS_LINE[status], *lines, b"\r\n"))
        if needs_care or cycle.scope["method"] == "HEAD" or head.count(b"\n") != len(lines) + 2:
            return False
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(head + body)
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_message_complete(self) -> None:
        """End a request: what comes next is a head."""
        super().on_message_complete()
        self._part_began = self.loop.time()

    def on_response_complete(self) -> None:
        """Go on with the next request, or with the refusal that waited for this answer."""
        super().on_response_complete()
        if self._refusal is not None:
            self._send_refusal_in_turn()
        elif (reason := connection_of(self.cycle.scope).refused_for) is not None:  # type: ignore[arg-type]
            self._refused_at, self._was_late = time.monotonic(), reason == "deadline"
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the client to take what was sent, but not for ever."""
        super().pause_writing()
        self._writing_limit = self.loop.call_later(self._patience.reading_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        if self._writing_limit is not None:
            self._writing_limit.cancel()

    @property
    def _is_idle(self) -> bool:
        """Whether the last request is over and nothing has come since."""
        is_between = self._part is Part.NONE and self._has_requested
        return is_between and self._head_bytes == 0 and not self._unparsed

    def _watch(self) -> None:
        """Set an alarm for what the client has to send next; none while it waits for an answer or is just idle."""
        if (self._part is not _BODY and self._is_answering) or self.transport.is_closing():
            if self._reading_limit is not None:
                self._end_reading_limit()
        elif self._is_idle and self._refusal is None:
            self._end_reading_limit()
            self._idle[self], self._idle_since = None, self.loop.time()
            if self._idle_limit is None:  # it is left to run while requests come: a timer for each would cost more
                self._idle_limit = self.loop.call_later(self.timeout_keep_alive, self._look_at_idleness)
        elif self._reading_limit is None and self._refusal is None:
            self._part_began = self.loop.time()
            self._reading_limit = self.loop.call_later(self._seconds_left(), self._look_at_the_time)

    def _end_reading_limit(self) -> None:
        if self._reading_limit is not None:
            self._reading_limit.cancel()
            self._reading_limit = None

    def _look_at_idleness(self) -> None:
        self._idle_limit = None
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self not in self._idle:
            return
        if left_s > 0:
            self._idle_limit = self.loop.call_later(left_s, self._look_at_idleness)
        else:
            self.transport.close()

    def _seconds_left(self) -> float:
        allowed_s = self._patience.head_s
        if self._part is _BODY:
            at_least_rate_s = self._patience.body_start_s + self._body_bytes / self._patience.least_bytes_per_s
            allowed_s = min(self._patience.body_s, at_least_rate_s)
        return self._part_began + allowed_s - self.loop.time()

    def _look_at_the_time(self) -> None:
        self._reading_limit = None
        if self.transport.is_closing() or self._refusal is not None:
            return
        if self.flow.read_paused:  # the delay is ours
            self._part_began = self.loop.time()
        left_s = self._seconds_left()
        if left_s > 0:
            self._reading_limit = self.loop.call_later(left_s, self._look_at_the_time)
        elif self._head_bytes == 0 and self._part is Part.NONE:
            self.transport.close()  # it has said nothing, so there is nothing to answer
        else:
            self._refuse(TOO_SLOW)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it begins a request for which there is no capacity."""
        if self._overload is None or not self._is_at_rest() or not self._refuse_early(data, self._overload):
            super().data_received(data)

    def _is_at_rest(self) -> bool:
        """Whether all requests that came have their responses, and nothing of a further one has come."""
        is_between = self._part is Part.NONE and self._head_bytes == 0 and not self._unparsed
        return is_between and not self._is_answering and self._refusal is None

    def _refuse_early(self, data: bytes, overload: OverloadControl) -> bool:
        """Refuse or delay a request that has just come, and return whether that was done."""
        now = time.monotonic()
        insists = now - self._refused_at < overload.insists_s
        if not (insists and self._was_late) and overload.has_capacity(now):
            overload.let_through(self.loop)
            return False
        if insists and overload.pause(self.loop, self, for_deadline=self._was_late):
            self._is_paused = True
            self._idle.pop(self, None)
            self._keep(data, 0)
            return True
        return self._respond_early(data, overload)

    def _respond_early(self, data: bytes, overload: OverloadControl) -> bool:
        if self.flow.write_paused or self.transport.is_closing():
            return False
        refusal = overload.refusal(data, self.server_state.default_headers)
        if refusal is None:
            return False
        response, closes = refusal
        self.transport.write(response)
        self._refused_at, self._was_late = time.monotonic(), False
        self._has_requested = True
        if closes:
            self.transport.close()
        self._idle.pop(self, None)  # `_watch` adds it at the end
        self._watch()
        return True

    def end_pause(self) -> None:
        """Handle the request that was delayed: refuse it if there is still no capacity."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self.transport.is_closing() or self._refusal is not None:
            return
        if not self._refuse_held():
            self._wait_for_turn()

    def _take_turn(self) -> None:
        if self._refuse_held():
            return
        if self._overload is not None and self._part is Part.NONE:
            self._overload.let_through(self.loop)
        super()._take_turn()

    def _refuse_held(self) -> bool:
        """Refuse the request that has waited here if there is no capacity, and return whether that was done."""
        is_request = self._part is Part.NONE and self._head_bytes == 0 and self._may_parse()
        if self._overload is None or not is_request or self._overload.has_capacity(time.monotonic()):
            return False
        is_refused = self._respond_early(self._unparsed[self._at :], self._overload)
        if is_refused:
            self._is_in_line = False
            self._keep(b"", 0)
            self._watch()
        return is_refused

    def shutdown(self) -> None:
        """Close the connection after the responses to what has come."""
        self._is_paused = False
        super().shutdown()

    def _refuse(self, refusal: ProtocolError) -> None:
        """Answer once, after the answers that are due; not at all if the request has its answer already."""
        is_first = self._refusal is None
        super()._refuse(refusal)
        if is_first and self._part is _BODY and self.cycle.response_started:
            self.transport.close()
        elif is_first:
            self._send_refusal_in_turn()

    def _send_refusal_in_turn(self) -> None:
        """Send the refusal, unless an earlier request still waits for its answer."""
        is_next = not self.pipeline and (self._part is _BODY or not self._is_answering)
        if self._refusal is None or not is_next or self._is_refusal_sent or self.transport.is_closing():
            return
        self._is_refusal_sent = True
        path = getattr(self, "url", b"").partition(b"?")[0]  # as far as it has come
        identity = request_id(None)
        self.transport.write(self._refusal.answer(path.decode("latin-1"), identity))
        self._on_unread(self._refusal.status, self._refusal.code, identity, self.client[0] if self.client else None)
        self.loop.call_later(_DISCARD_S, self.transport.close)

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _DISCARD_BYTES:
            self.flow.pause_reading()  # the client has its moment to look; then the connection closes
