"""Damaged requests and bombs against a running server."""

import socket
import threading

import pytest

from service.app import create_app
from service.settings import Settings
from tests.reliability import bombs, mutated_requests
from tests.reliability.answers import BadFraming, Wire
from tests.reliability.good_requests import good_request, operations
from tests.reliability.request_mutations import KINDS, mutated_request

KNOWN = list(operations(create_app(Settings()).openapi()))


def test_cases_are_the_same_each_time_and_of_every_kind() -> None:
    cases = [mutated_request(case, KNOWN) for case in range(700)]
    assert cases == [mutated_request(case, KNOWN) for case in range(700)]
    assert {case.kind for case in cases} == set(KINDS)
    assert len({case.operation.template for case in cases}) == len({one.template for one in KNOWN})


def test_every_operation_has_a_good_request() -> None:
    for operation in KNOWN:
        assert bool(good_request(operation).body) == bool(operation.media_type)


@pytest.mark.timeout(300)
def test_every_damaged_request_has_a_documented_answer() -> None:
    report = mutated_requests.run(400)
    assert report.broken == []
    assert report.rows[-1][:2] == ("all", "400")


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_20_000_damaged_requests() -> None:
    assert mutated_requests.run(mutated_requests.COUNT).broken == []


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_bomb_is_refused_on_every_path() -> None:
    report = bombs.run(1)
    assert report.broken == []
    assert len(report.rows) == len({(one.method, one.template) for one in KNOWN}) + 1


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_bombs_for_every_path() -> None:
    assert bombs.run().broken == []


class _Canned:
    """A server that sends fixed bytes to one client."""

    def __init__(self, content: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(content,))
        self._thread.start()

    def _run(self, content: bytes) -> None:
        with self._listener.accept()[0] as client:
            client.sendall(content)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 200",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ],
)
def test_bad_framing_is_found(content: bytes) -> None:
    canned = _Canned(content)
    with Wire(canned) as wire, pytest.raises(BadFraming):  # type: ignore[arg-type]
        wire.answer()
    canned.close()


def test_answers_are_read_one_after_the_other() -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n"
    canned = _Canned(b"HTTP/1.1 100 Continue\r\n\r\n" + head % (200, 2) + b"ab" + head % (400, 0))
    with Wire(canned) as wire:  # type: ignore[arg-type]
        assert [(answer.status, answer.body) for answer in iter(wire.answer, None) if answer] == [
            (200, b"ab"),
            (400, b""),
        ]
    canned.close()
