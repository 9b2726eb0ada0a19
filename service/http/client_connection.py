"""The connection of a request as an object in the ASGI scope.

The HTTP server stores it in `scope["extensions"]["resnet.connection"]`. Other ASGI servers and test clients do not.
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
    """The interface between a request and its connection: state of the client, and reports to the connection."""

    __slots__ = ("can_be_answered", "delays_others", "has_left", "is_last", "refused_for", "send_whole")

    def __init__(
        self,
        has_left: Callable[[], bool] = _never,
        can_be_answered: Callable[[], bool] = _never,
        send_whole: SendWhole | None = None,
    ) -> None:
        """`has_left` and `can_be_answered` may be called from any thread."""
        self.has_left = has_left  # also true if the client closed its sending half only
        self.can_be_answered = can_be_answered
        self.send_whole = send_whole
        self.delays_others: Callable[[], bool] = _never  # whether images of this request delay those of others
        self.is_last: Callable[[], bool] = _never  # whether the response closes the connection, because of its age
        self.refused_for: Literal["capacity", "deadline"] | None = None

    def attach(self, delays_others: Callable[[], bool]) -> None:
        """Set the callable by which the connection checks whether this request delays others."""
        self.delays_others = delays_others

    def note_refusal(self, reason: Literal["capacity", "deadline"]) -> None:
        """Report a refusal, so that the connection delays a client that retries at once."""
        self.refused_for = reason

    def detach(self) -> None:
        """Break the reference cycles through the request, which only the garbage collector would free."""
        self.delays_others, self.is_last, self.send_whole = _never, _never, None


def put_connection(scope: Scope, connection: ClientConnection) -> None:
    """Store the connection in the scope of a new request."""
    scope["extensions"] = {_EXTENSION: connection}


def connection_of(scope: Scope) -> ClientConnection:
    """Return the connection of a request, or an inactive one if the server has stored none."""
    extensions = scope.get("extensions")
    connection: ClientConnection | None = None if extensions is None else extensions.get(_EXTENSION)
    return ClientConnection() if connection is None else connection
