"""`serve-resnet` as a process, real pictures over a real socket: answers, refusals, and an end that loses nothing."""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import picture

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models"
HAS_SHIPPED_MODEL = (SHIPPED / "cifar10-resnet20").exists()
MIB = 1024 * 1024


@dataclass
class Served:
    """A server process, and its two ports."""

    process: "subprocess.Popen[str]"
    port: int
    admin_port: int
    log: list[str] = field(default_factory=list)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        with contextlib.closing(self.connect()) as connection:
            with contextlib.suppress(ConnectionError):  # as curl and urllib3 do: a refusal may come before the end
                connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        return answer.status, json.loads(content) if "json" in answer.headers["content-type"] else content.decode()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)


@contextlib.contextmanager
def serving(models: Path, *options: object) -> Iterator[Served]:
    """Run the server until the block ends, and hold it to its promise: exit 0, and no traceback in its log."""
    command = [sys.executable, "-m", "service", "--models", models, "--port", 0, "--admin-port", 0, *options]
    with subprocess.Popen([*map(str, command)], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        served = Served(process, 0, 0)
        try:
            served.port, served.admin_port = ports_it_says(served)
            reader = threading.Thread(target=served.read_log)
            reader.start()
            yield served
            served.stop()
            assert process.wait(20) == 0, served.log
            reader.join()
        finally:
            process.kill()
    assert "Traceback" not in "".join(served.log), "".join(served.log)


def ports_it_says(served: Served) -> tuple[int, int]:
    assert served.process.stderr is not None
    for line in served.process.stderr:
        served.log.append(line)
        if found := re.search(r"listening on http://127.0.0.1:(\d+), metrics on http://127.0.0.1:(\d+)", line):
            return int(found[1]), int(found[2])
    raise AssertionError(f"the server did not start: {served.log}")


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    """One server for all tests that leave it as it was."""
    with serving(models) as served:
        yield served


def form(content: bytes) -> tuple[bytes, dict[str, str]]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


def assert_answer(document: Any) -> None:
    assert list(document) == ["model", "predictions", "image", "timings_ms"]
    assert re.fullmatch("[0-9a-f]{64}", document["model"]["sha256"])
    assert document["model"]["provider"] == "CPUExecutionProvider"
    assert document["image"] == {"format": "JPEG", "width": 50, "height": 37}
    assert len(document["predictions"]) == 5
    assert 0.9 < sum(best["probability"] for best in document["predictions"]) <= 1.00001


def test_a_picture_is_answered_as_a_form_and_as_a_body(served: Served, red: bytes) -> None:
    for body, headers in (form(red), (red, {"Content-Type": "image/jpeg"})):
        status, document = served.ask("POST", "/classify", body, headers)
        assert status == 200, document
        assert_answer(document)
        assert document["predictions"][0]["label"] == "red"


@pytest.mark.skipif(not HAS_SHIPPED_MODEL, reason="the shipped model is not there")
def test_the_shipped_model_answers(red: bytes) -> None:
    with serving(SHIPPED) as served:
        status, document = served.ask("POST", "/classify", *form(red))
        assert status == 200, document
        assert_answer(document)
        assert document["model"]["name"] == "cifar10-resnet20"
        assert served.ask("POST", "/classify?top_k=1000", red)[1]["predictions"][9]["label"]


def test_the_admin_port_counts_what_the_public_port_does(served: Served, red: bytes) -> None:
    served.ask("POST", "/classify", red)
    admin = Served(served.process, served.admin_port, 0)
    status, text = admin.ask("GET", "/metrics")
    assert status == 200
    assert re.search(r'resnet_requests_total\{method="POST",route="/classify",status="200"\} [1-9]', text)


def test_what_is_not_http_gets_a_problem_document(served: Served) -> None:
    with served.raw() as connection:
        connection.sendall(b"HELO mail.example\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert json.loads(answer.read())["code"] == "bad_http"


def test_no_answer_names_the_software_behind_it(served: Served) -> None:
    with contextlib.closing(served.connect()) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().headers["server"] is None


@pytest.mark.parametrize("is_form", [True, False])
def test_an_oversized_upload_sees_its_refusal_and_no_reset(served: Served, is_form: bool) -> None:
    content = b"\xff\xd8\xff" + bytes(25 * MIB)
    body, headers = form(content) if is_form else (content, {})
    for _ in range(3):
        status, document = served.ask("POST", "/classify", body, headers)
        assert (status, document["code"]) == (413, "too_large")


def test_an_oversized_upload_of_unknown_length_is_cut_short(served: Served) -> None:
    with served.raw() as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (MIB, bytes(MIB))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:  # a client that does not look until the server has had enough
                connection.sendall(chunk)
                sent += MIB
        assert 20 * MIB <= sent < 100 * MIB
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413


def test_a_client_that_asks_first_is_refused_before_it_sends(served: Served) -> None:
    with served.raw() as connection:
        head = b"POST /classify HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (30 * MIB))
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_client_that_asks_first_is_told_to_go_on(served: Served, red: bytes) -> None:
    with served.raw() as connection:
        head = b"POST /classify HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(red))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(red)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_hostile_bytes_never_fail_the_server(served: Served) -> None:
    dice = random.Random(5)
    whole = [picture((9, 99, 199), kind) for kind in ("JPEG", "PNG", "WEBP")]
    contents = [dice.randbytes(dice.randrange(1, 5000)) for _ in range(20)]
    contents += [image[: len(image) * part // 16] for image in whole for part in range(1, 16)]
    contents += [image[:8] + dice.randbytes(500) for image in whole for _ in range(5)]
    for content in contents:
        for body, headers in (form(content), (content, {})):
            status, document = served.ask("POST", "/classify", body, headers)
            assert status in (200, 415, 422), document
    assert served.process.poll() is None
    assert served.ask("GET", "/health/ready")[0] == 200


def test_many_requests_on_one_connection(served: Served, red: bytes) -> None:
    with contextlib.closing(served.connect()) as connection:
        for body in (red, b"text", red, b"", red):
            connection.request("POST", "/classify", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == {b"text": 415, b"": 400}.get(body, 200)


def test_a_small_body_that_was_refused_unread_leaves_the_connection_in_order(served: Served, red: bytes) -> None:
    with contextlib.closing(served.connect()) as connection:
        for path, body, status in (
            ("/classify?model=none", bytes(60_000), 404),
            ("/classify", red, 200),
            ("/nothing", bytes(60_000), 404),
            ("/classify?top_k=0", bytes(60_000), 400),
            ("/classify", red, 200),
        ):
            connection.request("POST", path, body)
            assert connection.sock is not None
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            assert answer.headers["connection"] is None


def test_told_to_stop_it_is_not_ready_at_once_but_still_answers(models: Path, red: bytes) -> None:
    with serving(models, "--drain-delay-s", 2) as served:
        assert served.ask("GET", "/health/ready")[0] == 200
        served.stop()
        wait_until(lambda: served.ask("GET", "/health/ready")[0] == 503)
        assert served.ask("POST", "/classify", red)[0] == 200
        assert served.process.wait(10) == 0


class Load:
    """Clients that ask as fast as they can, some on connections they keep, until nobody listens any more."""

    def __init__(self, served: Served, body: bytes, clients: int) -> None:
        self.answered: list[int] = []
        self.lost: list[str] = []
        self._served, self._body = served, body
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, keeps: bool) -> None:
        connection = self._served.connect()
        while True:
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                return  # it was not accepted, so it is not lost
            try:
                connection.request("POST", "/classify", self._body)
                answer = connection.getresponse()
                answer.read()
                self.answered.append(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            if not keeps:
                connection.close()


def test_told_to_stop_under_load_it_loses_nothing(models: Path, red: bytes) -> None:
    with serving(models) as served, Load(served, red, clients=12) as load:
        wait_until(lambda: len(load.answered) > 200)
        served.stop()
        assert served.process.wait(10) == 0
    assert load.lost == []
    assert set(load.answered) == {200}


def test_it_stops_in_time_whatever_clients_do(models: Path) -> None:
    with serving(models) as served, contextlib.ExitStack() as stack:
        silent, half_head, slow_body, idle = (stack.enter_context(served.raw()) for _ in range(4))
        half_head.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\n")
        slow_body.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
        started = time.monotonic()
        served.stop()
        answer = http.client.HTTPResponse(slow_body)
        answer.begin()  # it is told in the end, and not just cut off
        assert (answer.status, json.loads(answer.read())["code"]) == (503, "draining")
        assert served.process.wait(20) == 0
        assert time.monotonic() - started < 10  # the promise itself
        assert silent.recv(1) == b""


def test_told_twice_it_does_not_wait_for_slow_clients(models: Path) -> None:
    with serving(models, "--drain-delay-s", 60, "--drain-timeout-s", 60) as served, served.raw() as slow:
        slow.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        served.stop()
        wait_until(lambda: served.ask("GET", "/health/ready")[0] == 503)
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(15) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_quietly(models: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: catches(process.pid, number))
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    is_python_ready = os.path.exists(f"/proc/{pid}/fd/4")  # it has opened its sockets, so its handlers are set
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1) and is_python_ready


def wait_until(condition: Any) -> None:
    while not condition():  # the test's own timeout is the limit
        time.sleep(0.01)
