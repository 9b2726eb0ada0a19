"""A channel of messages between two processes over a pair of sockets, and the requests that await a reply on it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from service.processes.messages import Message, decode, encode

_LONGEST_MESSAGE_BYTES = 16 * 1024 * 1024

Result = TypeVar("Result")


class MessageChannel:
    """One end of a channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "MessageChannel":
        """Return the channel over a connected socket, and take ownership of the socket."""
        return cls(*await asyncio.open_connection(sock=end, limit=_LONGEST_MESSAGE_BYTES))

    def send(self, message: Message) -> None:
        """Queue a message; once the other end has closed, it is dropped."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the other end sends, until it closes. Raises MessageError."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                yield decode(line)

    async def flush(self) -> None:
        """Wait until the buffer of queued messages is small."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


class PendingReplies(Generic[Result]):
    """Numbered requests that have no reply yet."""

    def __init__(self) -> None:
        self._count = 0
        self._futures: dict[int, asyncio.Future[Result]] = {}
        self._is_closed = False

    def add(self) -> tuple[int, asyncio.Future[Result]]:
        """Return the number of a new request and the future of its reply, which is cancelled after `close`."""
        self._count += 1
        future = self._futures[self._count] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            future.cancel()
        return self._count, future

    def first(self) -> asyncio.Future[Result] | None:
        """Return the future of the oldest request, or None if all have a reply."""
        return next(iter(self._futures.values()), None)

    def resolve(self, number: int, result: Result) -> None:
        """Set the result of a request; an unknown number or a cancelled request is ignored."""
        future = self._futures.pop(number, None)
        if future is not None and not future.done():
            future.set_result(result)

    def forget(self) -> None:
        """Ignore the replies that are still to come."""
        self._futures.clear()

    def close(self) -> None:
        """Cancel all requests that have no reply yet, and those to come: the other end has ended."""
        self._is_closed = True
        for future in self._futures.values():
            future.cancel()
