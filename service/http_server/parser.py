"""uvicorn's HTTP protocol with incremental parsing, so that no client can block the event loop.

httptools parses all bytes of a call and cannot be interrupted, even if they hold ten thousand requests or chunks. This
class passes it the bytes up to the end of a head or a body, or a small piece of a chunked body. While a request has no
response, the next one is not parsed: pipelined bytes wait here, and then in the kernel. Work beyond one turn is queued
(`parsing_turns.py`).

A server may ignore an `Upgrade` header (RFC 9110, section 7.8), but httptools then treats the body as another
protocol. Such a head is therefore parsed a second time without its `Upgrade` header.
"""

from enum import Enum
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http_server.early_errors import (
    BAD_HTTP,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    PIPELINE_TOO_LARGE,
    TINY_CHUNKS,
    TOO_LARGE,
    ProtocolError,
)
from service.http_server.flow_control import ReadingFlow
from service.http_server.parsing_turns import Turns
from service.http_server.request_head import head_without_upgrade, refusal_of_head, size_of_head

_HEAD_END = b"\r\n\r\n"  # also ends a chunked body
_SMALLEST_PIECE, _LARGEST_PIECE = 1024, 16 * 1024  # of a chunked body
_MANY_CHUNKS = 64  # in a piece: the chunks are tiny, so the next piece has the smallest size
_SMALL_REST = 2048  # bytes after a head that are parsed together with it, unless they hold another head
_CALLS_A_TURN = 128
_FEW = 32  # connections that share the loop without turns: a turn takes 0.2 ms at most
_FREE_CHUNKS, _LEAST_CHUNK_BYTES = 16 * 1024, 64  # the mean size of chunks is checked beyond this number
_SMALL_BYTES = 4096  # cannot hold a pipeline of many requests
_MOST_UNPARSED_BYTES = 64 * 1024 * 1024  # of all connections of a process


class Part(Enum):
    """The part of a request that the client sends next."""

    NONE = "a new request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"


_BODY = Part.BODY


class _Refused(Exception):
    """Stops httptools inside a piece; `ParsingProtocol._refusal` has the reason."""


class ParsingProtocol(HttpToolsProtocol):
    """The parsing half of a connection: bytes in, ASGI requests out."""

    def __init__(
        self,
        *arguments: Any,
        turns: Turns | None = None,
        idle: "dict[ParsingProtocol, None] | None" = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._idle = {} if idle is None else idle  # all idle connections, the longest idle one first
        self.flow: ReadingFlow
        self._turns = turns or Turns()
        self._unparsed, self._at = b"", 0  # received bytes, and the offset of their unparsed rest
        self._is_queued = False
        self._is_paused = False  # requests are delayed because the last one was refused
        self._has_ended = False  # the client has closed its sending half, or the whole connection
        self._refusal: ProtocolError | None = None  # once set, no more bytes are parsed
        self._part = Part.NONE
        self._calls = 0  # of the parser in this turn
        self._lines = 0  # of the current head, or of the trailers
        self._head_bytes = 0  # of an incomplete head, or of a chunked body's framing since its last data
        self._body_length: int | None = None  # as declared; None: it is chunked
        self._body_bytes = 0  # received of the current body
        self._chunks = 0
        self._chunks_before, self._piece_bytes = 0, _SMALLEST_PIECE  # state at the last piece

    def connection_made(self, transport: Any) -> None:
        """Replace uvicorn's flow control by `ReadingFlow`."""
        super().connection_made(transport)
        self.flow = ReadingFlow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the unparsed bytes."""
        super().connection_lost(exc)
        self._turns.unparsed_bytes -= len(self._unparsed)
        self._unparsed = b""

    def data_received(self, data: bytes) -> None:
        """Parse the data now, or store it and queue a turn."""
        self._idle.pop(self, None)
        if self._refusal is not None:
            self._discard(len(data))
        elif self._unparsed:
            self._keep(self._unparsed + data, self._at)
        elif self._has_turn():
            self._parse(data, 0)
        else:
            self._keep(data, 0)
            self._wait_for_turn(is_first=len(data) <= _SMALL_BYTES)

    def shutdown(self) -> None:
        """Parse the stored bytes, then close the connection after the responses that are due."""
        if self._unparsed and self._may_parse():
            self._parse(self._unparsed, self._at)
        super().shutdown()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_due(self) -> bool:
        """Return whether the client gets a response without sending more bytes."""
        return bool(self._unparsed or self.pipeline) or (self._is_answering and self._part is not _BODY)

    def _may_parse(self) -> bool:
        if self._refusal is not None or self.transport.is_closing():
            return False
        return self._part is _BODY or not (self._is_answering or self._is_paused)

    def _has_turn(self) -> bool:
        is_one_call = self._part is _BODY and self._body_length is not None
        return len(self.connections) <= _FEW or is_one_call or self._turns.take(self.loop)

    def _wait_for_turn(self, *, is_first: bool = False) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._turns.wait(self.loop, self._take_turn, is_first=is_first)

    def _take_turn(self) -> None:
        self._is_queued = False
        if self._unparsed and not self.transport.is_closing():
            self._parse(self._unparsed, self._at)

    def _parse(self, data: bytes, at: int) -> None:
        """Parse as much as one turn allows, from offset `at`; store the rest."""
        self._calls, size = 0, len(data)
        while at < size and self._calls < _CALLS_A_TURN and self._may_parse():
            end = self._end_of_piece(data, at)
            at += self._feed(data if end - at == size else memoryview(data)[at:end])
        if at < size and self._refusal is None:
            self._keep(data, at)
            if self._may_parse():
                self._wait_for_turn()
        elif self._unparsed:
            self._keep(b"", 0)
        if self._refusal is None:
            self._update_timers()
        if self._has_ended:
            self._close_unless_due()

    def _close_unless_due(self) -> None:
        if self._refusal is None and not self._is_due():
            self.transport.close()

    def _end_of_piece(self, data: bytes, at: int) -> int:
        if self._part is not _BODY:
            limit = at + MAX_HEAD_BYTES
        elif self._body_length is not None:
            return min(len(data), at + self._body_length - self._body_bytes)
        else:
            limit = at + self._size_of_piece()
        end = data.find(_HEAD_END, at, limit) + len(_HEAD_END)
        if end < len(_HEAD_END):
            return min(limit, len(data))
        is_last = len(data) - end <= _SMALL_REST and data.find(_HEAD_END, end) < 0
        return len(data) if is_last else end

    def _size_of_piece(self) -> int:
        """Return the bytes of a chunked body's next piece: twice the last size, or the smallest after many chunks."""
        is_tiny = self._chunks - self._chunks_before > _MANY_CHUNKS
        self._piece_bytes = _SMALLEST_PIECE if is_tiny else min(2 * self._piece_bytes, _LARGEST_PIECE)
        self._chunks_before = self._chunks
        return self._piece_bytes

    def _feed(self, piece: bytes | memoryview) -> int:
        """Parse a piece; return how many bytes were used: all, unless the piece has an `Upgrade` header."""
        self._calls += 1
        if self._part is not _BODY or self._body_length is None:
            self._head_bytes += len(piece)
        used = len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            used = int(upgrade.args[0])
            self._feed_head_again()
        except httptools.HttpParserError:
            self._refuse(BAD_HTTP)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(TOO_LARGE)
        return used

    def _feed_head_again(self) -> None:
        """Parse the last head again without its `Upgrade` header."""
        head = head_without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)  # the old one may treat the connection as closed
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserError:
            self._refuse(BAD_HTTP)

    def _keep(self, data: bytes, at: int) -> None:
        """Store unparsed bytes and pause reading; with no bytes, resume reading."""
        self._turns.unparsed_bytes += len(data) - len(self._unparsed)
        self._unparsed, self._at = data, at
        if not data:
            self.flow.release()
            return
        self.flow.hold()
        if self._turns.unparsed_bytes > _MOST_UNPARSED_BYTES:
            self._refuse(PIPELINE_TOO_LARGE)

    def _refuse(self, refusal: ProtocolError) -> None:
        """Stop parsing, and drop the stored bytes."""
        self._refusal = self._refusal or refusal
        if self._unparsed:
            self._keep(b"", 0)

    def _update_timers(self) -> None:
        """Hook of `Connection`: bytes were parsed, or a response is complete."""

    def _discard(self, size: int) -> None:
        """Hook of `Connection`: `size` bytes arrived after a refusal."""

    def on_message_begin(self) -> None:
        """Start the head of a request."""
        super().on_message_begin()
        self._part, self._lines = Part.HEAD, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header without trailing white space; trailers are ignored."""
        self._lines += 1
        if self._lines > MAX_HEADERS:
            self._refuse(TOO_LARGE)
            raise _Refused
        if self._part is not _BODY:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Check the head, and start the request if it is valid."""
        last = dict(self.headers)
        version = self.parser.get_http_version()
        refusal = refusal_of_head(self.parser.get_method(), version, self.headers, last)
        if self._head_bytes > MAX_HEAD_BYTES and size_of_head(self.url, self.headers) > MAX_HEAD_BYTES:
            refusal = TOO_LARGE  # `_head_bytes` may include the beginning of the body, so the head itself is measured
        if refusal is not None:
            self._refuse(refusal)
            raise _Refused
        if self.parser.should_upgrade():
            return  # `_feed_head_again` parses this head once more
        self.expect_100_continue = version == "1.1" and last.get(b"expect", b"").lower() == b"100-continue"
        super().on_headers_complete()
        self._body_length = None if b"transfer-encoding" in last else int(last.get(b"content-length", 0))
        self._part = _BODY
        self._head_bytes = self._body_bytes = self._lines = self._chunks = 0
        self._piece_bytes, self._chunks_before = _SMALLEST_PIECE, 0

    def on_body(self, body: bytes) -> None:
        """Count and pass on a piece of the body; refuse a body of too many tiny chunks."""
        self._body_bytes += len(body)
        if self._body_length is None:
            self._head_bytes = 0
            self._calls += 1
            self._chunks += 1
            if self._chunks > _FREE_CHUNKS + self._body_bytes // _LEAST_CHUNK_BYTES:
                self._refuse(TINY_CHUNKS)
                raise _Refused
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; the next bytes are a head."""
        if self.parser.should_upgrade():
            return
        self._part, self._head_bytes = Part.NONE, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with pipelined requests, or close the connection if the client has ended it.

        Replaces uvicorn's method, which also starts a keep-alive timer for each response.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._unparsed:
            self._wait_for_turn()
        elif self._has_ended:
            self._close_unless_due()
