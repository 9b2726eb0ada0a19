"""Freed memory stays with the process: the kernel is asked for it once."""

import subprocess
import sys

import pytest

from training.hardware import malloc as allocator

_FAULTS = """
import resource, sys, torch
from training.hardware.devices import choose
if sys.argv[1] == "chosen":
    choose("fp32", "off", 1)
def steps():
    for _ in range(4):
        torch.ones(2**24)  # 64 MiB, let go at once
steps()  # the first hole may be a few bytes too small for the next tensor
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of_later_tensors(chosen: str) -> int:
    command = [sys.executable, "-c", _FAULTS, chosen]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not allocator._is_glibc(), reason="another C library")
def test_memory_that_a_step_lets_go_is_there_for_the_next_one() -> None:
    assert 4 * faults_of_later_tensors("chosen") < faults_of_later_tensors("usual")


def test_another_c_library_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError(f"unrecognized configuration name {name}")

    monkeypatch.setattr(allocator.os, "confstr", unknown)
    assert allocator.keep_freed_memory() is False
