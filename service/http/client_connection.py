"""The connection of a request, as the application sees it: one object in the ASGI scope.

The HTTP server puts it under `scope["extensions"]["resnet.connection"]`. Other ASGI servers and test clients have none.
"""

from collections.abc import Callable
from typing import Literal

from starlette.types import Scope

_EXTENSION = "resnet.connection"

# Sends a whole response (status, headers, body) in one piece; returns False if it has to be sent in parts.
SendWhole = Callable[[int, list[tuple[bytes, bytes]], bytes], bool]


def _never() -> bool:
    return False


class ClientConnection:
    """What a request asks of its connection, and what it reports to it."""

    __slots__ = ("can_be_answered", "has_left", "is_in_the_way", "refused_for", "send_whole")

    def __init__(
        self,
        has_left: Callable[[], bool] = _never,
        can_be_answered: Callable[[], bool] = _never,
        send_whole: SendWhole | None = None,
    ) -> None:
        """`has_left` and `can_be_answered` may be called from any thread."""
        self.has_left = has_left  # true also for a client that closed its sending half only
        self.can_be_answered = can_be_answered
        self.send_whole = send_whole
        self.is_in_the_way: Callable[[], bool] = _never  # whether images of this request delay those of others
        self.refused_for: Literal["capacity", "deadline"] | None = None

    def attach(self, is_in_the_way: Callable[[], bool]) -> None:
        """Let the connection ask the request whether it delays others."""
        self.is_in_the_way = is_in_the_way

    def note_refusal(self, reason: Literal["capacity", "deadline"]) -> None:
        """Let the connection delay the client's next request if the client repeats it at once."""
        self.refused_for = reason

    def detach(self) -> None:
        """Break the reference cycles through the request, which only garbage collection would free."""
        self.is_in_the_way, self.send_whole = _never, None


def put_connection(scope: Scope, connection: ClientConnection) -> None:
    """Store the connection in the scope of a new request."""
    scope["extensions"] = {_EXTENSION: connection}


def connection_of(scope: Scope) -> ClientConnection:
    """Return the connection of a request, or one that can do nothing if the server has stored none."""
    extensions = scope.get("extensions")
    connection: ClientConnection | None = None if extensions is None else extensions.get(_EXTENSION)
    return ClientConnection() if connection is None else connection
