"""Turning new clients away without hurting those who are half inside."""

import socket
import sys
from collections.abc import Iterator

import pytest

from service.http_server.listener import drop_new_connections


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.mark.skipif(sys.platform != "linux", reason="packet filters are Linux's")
def test_who_had_connected_is_served_and_who_comes_later_is_not(listener: socket.socket) -> None:
    address = listener.getsockname()
    with socket.create_connection(address) as early:
        drop_new_connections(listener)
        with socket.socket() as late:
            late.settimeout(0.1)
            with pytest.raises(TimeoutError):
                late.connect(address)
        accepted, _ = listener.accept()
        with accepted:
            early.sendall(b"question")
            accepted.settimeout(10)
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert early.recv(100) == b"answer"
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_where_it_is_not_possible_nothing_breaks(caplog: pytest.LogCaptureFixture) -> None:
    class Socket(socket.socket):
        def setsockopt(self, *_: object) -> None:
            raise OSError("not here")

    with Socket() as listener, caplog.at_level("INFO"):
        drop_new_connections(listener)
    assert "may be cut off" in caplog.text
