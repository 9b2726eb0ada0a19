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

ROOT = Path(__file__).parents[2]


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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(condition: Any) -> None:
    while not condition():  # the test's own timeout is the limit
        time.sleep(0.01)
