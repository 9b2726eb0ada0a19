"""Who takes a new client in, if several processes could."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from service.http_server.acceptor import Acceptor, connection_limit
from service.system.shared_counters import SharedLoad
from tests.support.servers.served import wait_until

pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


class Door:
    """One process's acceptor and the clients that it let in."""

    def __init__(self, listener: socket.socket, board: SharedLoad, place: int, most: int = 1000) -> None:
        self.clients: dict[asyncio.BaseTransport, None] = {}  # the oldest first
        self.made = 0
        self.is_busy = False
        self.acceptor = Acceptor(
            listener,
            lambda: Client(self),
            shared_load=board,
            worker_index=place,
            max_connections=most,
            close_idle=self.close_idle,
        )

    def close_idle(self) -> bool:
        if self.is_busy or not self.clients:
            return False
        next(iter(self.clients)).close()
        return True

    async def close(self) -> None:
        self.acceptor.close()
        await self.acceptor.wait_closed()
        for client in list(self.clients):
            client.close()
        await until(lambda: not self.clients)


class Client(asyncio.Protocol):
    def __init__(self, door: Door) -> None:
        self.door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.door.clients[transport] = None
        self.door.made += 1

    def connection_lost(self, exc: Exception | None) -> None:
        del self.door.clients[self.transport]
        self.door.acceptor.on_connection_lost()


@asynccontextmanager
async def doors(
    count: int, board: SharedLoad, most: int = 1000
) -> AsyncIterator[tuple[list[Door], Callable[[], socket.socket]]]:
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        made = [Door(sockets.enter_context(listener.dup()), board, place, most) for place in range(count)]

        def call() -> socket.socket:
            return sockets.enter_context(socket.create_connection(listener.getsockname()))

        yield made, call
        for door in made:
            await door.close()


@pytest.mark.parametrize("clients", [2, 4, 8, 64])
async def test_each_process_gets_its_share(clients: int) -> None:
    async with doors(2, SharedLoad(2)) as ((left, right), call):
        for _ in range(clients):
            call()
        await until(lambda: len(left.clients) + len(right.clients) == clients)
        assert abs(len(left.clients) - len(right.clients)) <= max(1, clients // 8)


async def test_what_another_process_should_take_and_does_not_is_taken_all_the_same() -> None:
    board = SharedLoad(2)
    board.note_connections(1, 0)  # it is stuck
    async with doors(1, board) as ((door,), call):
        for _ in range(5):
            call()
        await until(lambda: len(door.clients) == 5)


async def test_a_process_that_is_no_more_is_not_waited_for() -> None:
    board = SharedLoad(2)
    board.note_connections(1, 0)
    board.clear(1)
    async with doors(1, board) as ((door,), call):
        for _ in range(5):
            call()
        await until(lambda: len(door.clients) == 5)
        assert board.fewest_connections() == 5


async def test_clients_that_leave_make_room() -> None:
    board = SharedLoad(2)
    async with doors(1, board) as ((door,), call):
        caller = call()
        await until(lambda: board.fewest_connections() == 1)
        caller.close()
        await until(lambda: board.fewest_connections() == 0)
        assert not door.clients


async def test_without_free_file_descriptors_clients_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(socket.socket):
        is_full = True

        def accept(self) -> tuple[socket.socket, object]:
            if self.is_full:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    monkeypatch.setattr("service.http_server.acceptor._OUT_OF_RESOURCES_S", 0.01)
    with Full() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        door = Door(listener, SharedLoad(1), 0)
        with socket.create_connection(listener.getsockname()):
            await until(lambda: "cannot accept connections" in caplog.text)
            Full.is_full = False
            await until(lambda: len(door.clients) == 1)
            await door.close()


async def test_at_the_cap_an_idle_client_makes_room_for_a_new_one() -> None:
    async with doors(1, SharedLoad(1), most=2) as ((door,), call):
        callers = [call() for _ in range(2)]
        await until(lambda: len(door.clients) == 2)
        third = call()
        await until(lambda: callers[0].recv(1) == b"")  # the one that has been idle longest
        await until(lambda: door.made == 3 and len(door.clients) == 2)
        third.setblocking(False)
        with pytest.raises(BlockingIOError):
            third.recv(1)


async def test_at_the_cap_without_an_idle_client_a_new_one_is_turned_away_at_once() -> None:
    async with doors(1, SharedLoad(1), most=2) as ((door,), call):
        call(), call()
        await until(lambda: len(door.clients) == 2)
        door.is_busy = True
        assert await asyncio.to_thread(call().recv, 1) == b""
        assert len(door.clients) == 2
        door.is_busy = False
        call()
        await until(lambda: door.made == 3)


def test_the_cap_leaves_files_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    in_use = len(os.listdir("/dev/fd"))
    for limit, reserved in ((64, 16), (256, 64), (1024, 64), (65_536, 64)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert limit - reserved - 4 <= connection_limit() + in_use <= limit - reserved + 4
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connection_limit() > 1_000_000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    assert connection_limit() == 1
