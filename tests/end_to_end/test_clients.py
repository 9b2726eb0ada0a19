"""Clients as they are: hundreds that send too slowly, thousands that hang up. The others notice nothing."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers.served import Load, Served, serving, wait_until

# A model that takes 20 ms an image, so that there is a queue to leave.
SLOW = """
import time
from service.inference.classifier import Classifier

answer_batch = Classifier.answer_batch

def slow(self, images, **options):
    time.sleep(0.05 * len(images))
    return answer_batch(self, images, **options)

Classifier.answer_batch = slow
"""


def hang_up(models: Path, red: bytes, *, clients: int) -> None:
    """Clients that close after their upload have at most 5% of their images classified."""
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(red)
    with serving(models, "--max-batch", 1, patch=SLOW) as served:
        for _ in range(clients // 50):
            with contextlib.ExitStack() as stack:
                for connection in [stack.enter_context(served.raw()) for _ in range(50)]:
                    connection.sendall(head + red)
        wait_until(lambda: served.sample("resnet_requests_in_flight") == served.sample("resnet_queue_depth") == 0)
        assert served.sample("resnet_pictures_total") <= 0.05 * clients
        assert served.ask("POST", "/classify", red)[0] == 200


def test_images_of_clients_that_hung_up_are_not_classified(models: Path, red: bytes) -> None:
    hang_up(models, red, clients=400)


@pytest.mark.long
def test_images_of_two_thousand_clients_that_hung_up_are_not_classified(models: Path, red: bytes) -> None:
    hang_up(models, red, clients=2000)


def send_slowly(models: Path, red: bytes, *, clients: int) -> None:
    """Each slow client is closed in time, and nobody else waits or fails."""
    with serving(models) as served, Load(served, red, clients=2) as load:
        connections = [served.raw() for _ in range(clients)]
        started = time.monotonic()
        stop = threading.Event()
        with dripping(connections, stop), contextlib.ExitStack() as stack:
            for connection in connections:
                stack.enter_context(connection)
                while connection.recv(1000):  # the refusal, and then the end
                    pass
            assert time.monotonic() - started < 15  # the promise itself: 5 s, a moment to look, and a busy machine
        before = len(load.answered)
        wait_until(lambda: len(load.answered) > before + 20)
        served.stop()
    assert load.lost == []
    assert set(load.answered) == {"red"}


@contextlib.contextmanager
def dripping(connections: list[socket.socket], stop: threading.Event) -> Iterator[None]:
    """Send a byte a second on each: half of them in the head, half in the body."""

    def drip() -> None:
        for number, connection in enumerate(connections):
            start = b"POST /classify HTTP/1.1\r\nHost: a\r\n"
            connection.sendall(start + (b"Content-Length: 1000\r\n\r\n" if number % 2 else b""))
        for _ in range(4):  # then they fall silent
            if stop.wait(1):
                return
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(b"a")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_slow_senders_are_closed_in_time_while_others_are_served(models: Path, red: bytes) -> None:
    send_slowly(models, red, clients=60)


@pytest.mark.long
def test_five_hundred_slow_senders_are_closed_in_time_while_others_are_served(models: Path, red: bytes) -> None:
    send_slowly(models, red, clients=500)


def test_a_deadline_that_cannot_be_met_is_refused_before_the_upload(models: Path, red: bytes) -> None:
    with serving(models, "--max-batch", 1, "--processes", 1, "--engine-threads", 1, patch=SLOW) as served:
        for _ in range(5):
            assert served.ask("POST", "/classify", red)[0] == 200  # it knows its speed now
        with Load(served, red, clients=6) as load:
            wait_until(lambda: len(load.answered) > 30)
            with served.raw() as connection:
                connection.sendall(
                    b"POST /classify HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 10\r\nContent-Length: 1000000\r\n\r\n"
                )
                assert connection.recv(12) == b"HTTP/1.1 503"  # and not a byte of the body was sent
            served.stop()
    assert set(load.answered) == {"red"}


def ready_and_live(served: Served) -> list[int]:
    return [served.ask("GET", path)[0] for path in ("/health/live", "/health/ready")]


def test_a_busy_server_refuses_in_time_and_stays_live_and_ready(models: Path, red: bytes) -> None:
    with (
        serving(models, "--max-batch", 1, "--max-queue-age-s", 0.1, patch=SLOW) as served,
        Load(served, red, clients=30) as load,
    ):
        wait_until(lambda: any("overloaded" in answer or "expired" in answer for answer in load.answered))
        assert ready_and_live(served) == [200, 200]
        wait_until(lambda: load.answered.count("red") > 30)
        served.stop()
    assert load.lost == []
    assert all(answer == "red" or "overloaded" in answer or "expired" in answer for answer in load.answered)


# A model whose images wait until a file is there, none of them on the event loop.
GATED = """
import os, time
from service.inference.classifier import Classifier

answer_batch = Classifier.answer_batch

def gated(self, images, **options):
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    return answer_batch(self, images, **options)

Classifier.answer_batch = gated
Classifier.runs_inline = lambda *_: False
"""


def all_of(connection: socket.socket) -> bytes:
    """What comes until the connection ends."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_client_that_closed_its_sending_half_is_answered_unless_others_wait(
    models: Path, red: bytes, tmp_path: Path
) -> None:
    request = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(red) + red
    gate = tmp_path / "open"
    alone = ("--processes", 1, "--engine-threads", 1, "--max-batch", 1)
    with serving(models, *alone, patch=GATED.format(gate=str(gate))) as served, contextlib.ExitStack() as stack:
        running, ended, other, late = (stack.enter_context(served.raw()) for _ in range(4))
        running.sendall(request)  # this one is with the engine
        running.shutdown(socket.SHUT_WR)
        wait_until(lambda: served.sample("resnet_requests_in_flight") == 1 > served.sample("resnet_queue_depth"))
        ended.sendall(request)
        ended.shutdown(socket.SHUT_WR)
        wait_until(lambda: served.sample("resnet_queue_depth") == 1)
        other.sendall(request)
        wait_until(lambda: served.sample("resnet_queue_depth") == 2)
        late.sendall(request)
        wait_until(lambda: served.sample("resnet_queue_depth") == 3)
        late.shutdown(socket.SHUT_WR)
        assert all_of(late) == b""
        gate.touch()
        assert all_of(running).startswith(b"HTTP/1.1 200")
        assert other.recv(12) == b"HTTP/1.1 200"
        answer = all_of(ended)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"client_left" in answer
        assert served.sample("resnet_pictures_total") == 2

        gate.unlink()
        second, last = (stack.enter_context(served.raw()) for _ in range(2))
        second.sendall(request)
        wait_until(lambda: served.sample("resnet_requests_in_flight") == 1 > served.sample("resnet_queue_depth"))
        last.sendall(request)
        last.shutdown(socket.SHUT_WR)  # one is with the engine, and nothing else waits
        wait_until(lambda: served.sample("resnet_queue_depth") == 1)
        gate.touch()
        assert all_of(last).startswith(b"HTTP/1.1 200")


FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


def test_more_clients_than_descriptors_are_served_and_the_longest_idle_go_first(models: Path) -> None:
    with serving(models, "--processes", 1, patch=FEW_FILES) as served, contextlib.ExitStack() as stack:
        worker = served.workers()
        clients = []
        for _ in range(300):
            clients.append(stack.enter_context(served.raw()))
            clients[-1].sendall(LIVE)
            assert clients[-1].recv(12) == b"HTTP/1.1 200"
        assert all_of(clients[0]).endswith(b"}\n")  # closed
        clients[-1].sendall(LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"HTTP/1.1 200" in all_of(clients[-1])  # it was still there
        assert served.workers() == worker
        assert served.sample("resnet_requests_in_flight") == 0


def test_without_an_idle_client_a_new_one_is_refused_at_once_and_none_hangs(models: Path) -> None:
    with serving(models, "--processes", 1, patch=FEW_FILES) as served, contextlib.ExitStack() as stack:
        answer = b""
        while not answer:  # whatever time it takes to have all connections in a head, which is 5 s each
            client = stack.enter_context(served.raw())
            client.settimeout(0.02)
            with contextlib.suppress(OSError):
                client.sendall(LIVE[:-2])
                answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1\r\n" in answer
        assert b"too_many_connections" in answer
        stack.close()
        wait_until(lambda: is_live(served))
        assert served.sample("resnet_refusals_total") >= 1


def is_live(served: Served) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return served.ask("GET", "/health/live")[0] == 200
    return False


def test_the_admin_port_checks_the_host_too_and_accepts_a_new_client(models: Path) -> None:
    with serving(models, "--processes", 1) as served, contextlib.ExitStack() as stack:
        admin = Served(served.process, served.admin_port, 0)
        with admin.raw() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"
        for _ in range(200):
            stack.enter_context(admin.raw())
        assert admin.ask("GET", "/metrics")[0] == 200
