"""A container with a CPU quota, pretended by a folder of control groups."""

import os
from pathlib import Path

import pytest

from service.system import control_groups


def set_cpu_quota(monkeypatch: pytest.MonkeyPatch, folder: Path, cores: int, *, of: int = 64) -> None:
    """Let this process see a machine with `of` cores and a cgroup v2 quota of `cores`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{100_000 * cores} 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(of)), raising=False)
    monkeypatch.setattr(control_groups, "_ROOT", folder)
    monkeypatch.setattr(control_groups, "_OWN", folder / "own")
