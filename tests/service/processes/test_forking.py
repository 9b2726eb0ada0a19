"""A child process ends with its parent, also if the parent ended first."""

import subprocess
import sys

from tests.support.servers.served import ROOT


def test_a_child_whose_parent_ended_before_it_could_say_so_leaves() -> None:
    for parent, status in (("os.getppid()", 0), ("os.getppid() + 1", 1)):
        code = f"import os; from service.processes.forking import _end_with; _end_with({parent})"
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == status
