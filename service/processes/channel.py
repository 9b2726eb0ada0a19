"""What the supervisor and a worker tell each other: JSON objects, one a line, over a pair of sockets.

From the supervisor: `{"ping": 7}`, and `{"order": …}` with `serve`, `stop` or `hurry`. From a worker: `{"pong": 7, …}`
with its health and statistics, `{"loaded": …}` with its layout, and `{"failed": …}` with one line for the operator.
A worker's `{"total": 7}` asks for the statistics of all; `{"total": 7, "statistics": …}` answers.

Models change in two steps: `{"prepare": […]}` names files to load beside what serves, `{"lineup": …}` says what serves
from now on, out of both. `{"reply": 7, "failure": …}` answers such a message with the number 7; null is success.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson

_LONGEST_MESSAGE_BYTES = 16 * 1024 * 1024


class MessageChannel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "MessageChannel":
        """Return the pipe around a connected socket, which it owns from now on."""
        return cls(*await asyncio.open_connection(sock=end, limit=_LONGEST_MESSAGE_BYTES))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; what cannot be sent any more is lost."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message, default=str) + b"\n")

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the other side sends, until it is gone."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                yield orjson.loads(line)

    async def flush(self) -> None:
        """Wait until everything has been sent."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        """Close this end."""
        self._writer.close()
