"""Running of the blocks of a page, in order, as a reader would: commands in a shell, servers in the background."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from tests.documents.blocks import Block
from tests.support.servers.served import wait_until

_TIMEOUT_S = 900
_SERVER = re.compile(
    r"^(?:\w+=\S+ +)*(?:make serve|(?:\.venv/bin/)?serve-resnet|docker compose (?:\S+ )*up|docker run .*-p |"
    r"(?:\.venv/bin/)?resnet-mcp .*--transport)"
)
_LISTENS = re.compile(r"listening on http://[\w.]+:(\d+), metrics on http://[\w.]+:(\d+)|running on http://")
_OUR_PORTS = re.compile(r"--(port|admin-port) \d+")
_FILES = {"python": "block.py", "js": "block.mjs", "java": "{name}.java"}
_PROGRAMS = {"python": ".venv/bin/python", "js": "node", "java": "java"}


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@cache
def is_there(need: str) -> bool:
    """Return whether this machine has what a block needs."""
    return NEEDS[need]()


NEEDS: dict[str, Callable[[], bool]] = {
    "docker": lambda: _succeeds("docker", "info"),
    "registry": lambda: _succeeds("docker", "pull", "--quiet", "hello-world"),
    "node": lambda: shutil.which("node") is not None,
    "java": lambda: shutil.which("java") is not None,
    "npm": lambda: _succeeds("npm", "view", "@huggingface/inference", "version"),
    "pip": lambda: _succeeds(sys.executable, "-m", "pip", "index", "versions", "idna"),
    "torch": lambda: find_spec("torch") is not None,
}


def needs_of(block: Block) -> list[str]:
    """Return what has to be there for a block, named or by its language."""
    named = [word.strip() for word in block.marks.get("needs", "").split(",") if word.strip()]
    return named + {"js": ["node"], "java": ["java"]}.get(block.language, [])


@dataclass
class Server:
    """A server that a page has started, and the ports at which it listens."""

    process: "subprocess.Popen[str]"
    reader: threading.Thread = field(default_factory=threading.Thread)
    port: str = ""
    admin_port: str = ""
    log: list[str] = field(default_factory=list)

    def read(self, stream: IO[str], listens: threading.Event) -> None:
        with stream:
            for line in stream:
                self.log.append(line)
                if found := _LISTENS.search(line):
                    self.port, self.admin_port = found[1] or self.port, found[2] or self.admin_port
                    listens.set()
        listens.set()  # it has ended

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)  # as Ctrl-C does: to make and to what make has started
        try:
            self.process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.reader.join()


@dataclass
class Reader:
    """Who follows a page: in a folder, with an environment, and with the servers started so far."""

    folder: Path
    environment: dict[str, str]
    servers: list[Server] = field(default_factory=list)
    output: str = ""  # of the last block

    def run(self, block: Block) -> None:
        """Run one block.

        Raises AssertionError with the place and the output if a command fails.
        """
        if "before" in block.marks:
            self.execute(["bash", "-euo", "pipefail", "-c", block.marks["before"]], block)
        self.output = ""
        if block.language == "sh":
            for command, is_server in segments(block.text):
                if is_server:
                    self.start(command, block)
                else:
                    self.execute(["bash", "-euo", "pipefail", "-c", self.filled_in(command)], block)
        else:
            self.execute(self.program_of(block), block)

    def program_of(self, block: Block) -> list[str]:
        """Write a program into a file and return the command that runs it."""
        named = re.search(r"public class (\w+)", block.text)
        name = _FILES[block.language].format(name=named[1] if named else "")
        if "require(" in block.text:
            name = name.replace(".mjs", ".cjs")
        (self.folder / name).write_text(self.filled_in(block.text))
        return [_PROGRAMS[block.language], name, *self.filled_in(block.marks.get("arguments", "")).split()]

    def execute(self, command: list[str], block: Block) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        self.output += done.stdout
        said = (
            f"{done.stdout[-3000:]}{done.stderr[-3000:]}{''.join(self.servers[-1].log[-20:]) if self.servers else ''}"
        )
        assert done.returncode == 0, f"{block.place} ends with {done.returncode}:\n{block.text}\n{said}"

    def filled_in(self, text: str) -> str:
        """Return a text with the ports and the process id of the running server."""
        if not re.search(r"(127\.0\.0\.1|localhost):800[01]|kill -HUP 1234", text):
            return text
        if not self.servers:
            self.start("serve-resnet", None)
        server = self.servers[-1]
        text = re.sub(r"(127\.0\.0\.1|localhost):8000", rf"\1:{server.port}", text)
        text = re.sub(r"(127\.0\.0\.1|localhost):8001", rf"\1:{server.admin_port}", text)
        return text.replace("kill -HUP 1234", f"kill -HUP {server.process.pid}")

    def start(self, command: str, block: Block | None) -> None:
        """Start a server in place of the one before, and wait until it listens."""
        if "--transport" not in command:
            self.stop()
        command = _OUR_PORTS.sub(r"--\1 0", command.split("#", maxsplit=1)[0].strip())
        container = command.startswith("docker")
        if container:
            command = self.published(command)
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        server, listens = Server(process), threading.Event()
        self.servers.append(server)
        assert process.stderr is not None
        server.reader = threading.Thread(target=server.read, args=(process.stderr, listens))
        server.reader.start()
        if container:
            server.port = self.environment["PUBLISH_PORT"]
            wait_until(lambda: process.poll() is not None or _is_ready(server.port))
        else:
            listens.wait(_TIMEOUT_S)
        place = block.place if block else "the server of a page"
        assert process.poll() is None, f"{place}: {command}\n{''.join(server.log[-30:])}"

    def published(self, command: str) -> str:
        """Return a command of Docker that publishes a free port."""
        return command.replace("127.0.0.1:8000:8000", f"127.0.0.1:{self.environment['PUBLISH_PORT']}:8000")

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
        self.servers.clear()


def _is_ready(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def segments(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a shell block: commands that end, and each command that is a server (True)."""
    waiting: list[str] = []
    for line in re.findall(r"(?:[^\n]*\\\n)*[^\n]*\n?", text):
        if _SERVER.match(line) and "--help" not in line and "--detach" not in line:
            if "".join(waiting).strip():
                yield "".join(waiting), False
            waiting = []
            yield line.strip(), True
        else:
            waiting.append(line)
    if "".join(waiting).strip():
        yield "".join(waiting), False
