"""`serve-resnet` as a process, for tests that talk to it over real sockets."""

import contextlib
import http.client
import json
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

ROOT = Path(__file__).parents[3]


@dataclass
class Served:
    """A server process, and its two ports."""

    process: "subprocess.Popen[str]"
    port: int
    admin_port: int
    log: list[str] = field(default_factory=list)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        with contextlib.closing(self.connect()) as connection:
            with contextlib.suppress(ConnectionError):  # as curl and urllib3 do: a refusal may come before the end
                connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        return answer.status, json.loads(content) if "json" in answer.headers["content-type"] else content.decode()

    def ask_admin(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        return Served(self.process, self.admin_port, 0).ask(method, path, body, headers)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def workers(self) -> list[int]:
        """The ids of the processes that run models, as far as they are there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def sample(self, name: str) -> float:
        """The sum of a metric over all labels."""
        text = self.ask_admin("GET", "/metrics")[1]
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@contextlib.contextmanager
def serving(models: Path, *options: object, patch: str = "", fails: bool = False) -> Iterator[Served]:
    """Run the server until the block ends, and hold it to its promise: exit 0, and no traceback unless it `fails`.

    `patch` is Python that runs before the server does, to break what it is made of.
    """
    start = ["-c", f"{patch}\nfrom service.__main__ import main\nmain()"] if patch else ["-m", "service"]
    with serving_command([sys.executable, *start], "--models", models, *options, fails=fails) as served:
        yield served


@contextlib.contextmanager
def serving_command(
    start: list[str], *options: object, folder: Path = ROOT, fails: bool = False, environment: Any = None
) -> Iterator[Served]:
    """Run the server that a command starts, in a folder, as `serving` does."""
    command = [*start, "--port", 0, "--admin-port", 0, *options]
    with subprocess.Popen(
        [*map(str, command)], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        served = Served(process, 0, 0)
        try:
            served.port, served.admin_port = ports_it_says(served)
            reader = threading.Thread(target=served.read_log)
            reader.start()
            yield served
            served.stop()
            assert process.wait(20) == 0, served.log
            reader.join()
        except BaseException:
            sys.stdout.writelines(served.log)  # pytest shows it with the failure
            raise
        finally:
            process.kill()
    assert fails or "Traceback" not in "".join(served.log), "".join(served.log)


def ports_it_says(served: Served) -> tuple[int, int]:
    assert served.process.stderr is not None
    for line in served.process.stderr:
        served.log.append(line)
        if found := re.search(r"listening on http://127.0.0.1:(\d+), metrics on http://127.0.0.1:(\d+)", line):
            return int(found[1]), int(found[2])
    raise AssertionError(f"the server did not start: {served.log}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(condition: Any) -> None:
    while not condition():  # the test's own timeout is the limit
        time.sleep(0.01)


class Load:
    """Clients that ask as fast as they can, some on connections they keep, until nobody listens any more."""

    def __init__(self, served: Served, body: bytes, clients: int) -> None:
        self.answered: list[str] = []  # the best label, or what was answered instead
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
                document = json.load(answer)
                self.answered.append(document["predictions"][0]["label"] if answer.status == 200 else str(document))
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            if not keeps:
                connection.close()
