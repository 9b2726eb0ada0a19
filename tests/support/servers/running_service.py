"""`serve-resnet` as its users run it: a process of its own, on a port that it chose."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def running_service(models: Path, *options: str) -> Iterator[str]:
    """Run the service until the block ends; the value is its address, and it has to end by itself with status 0."""
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0", "--admin-port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield _address_it_says(process)
        finally:
            process.terminate()
            _, rest = process.communicate(timeout=20)
    assert process.returncode == 0, rest


def _address_it_says(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:  # ends when the process does
        said += line
        if found := re.search(r"listening on (http://[^,\s]+)", line):
            return found[1]
    raise AssertionError(f"the service did not start: {said}")
