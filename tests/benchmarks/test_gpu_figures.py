"""The benchmark on GPUs measures batches, and compares with the CPU; here on a CPU alone."""

import time

import pytest

from benchmarks.gpu import milliseconds, section
from tests.support.model_files.tiny_model import tiny_model


def test_milliseconds_are_those_of_one_call() -> None:
    assert milliseconds(lambda: time.sleep(0.002), seconds=0.01) >= 2


def test_a_section_says_what_ran_how_fast_and_how_right() -> None:
    lines = section("tiny", tiny_model(), "cpu", (1, 2)).splitlines()
    assert lines[0] == "### tiny"
    assert lines[2].startswith("CPUExecutionProvider, batches of at most any size; probabilities differ")
    assert lines[2].endswith("by at most 0.0e+00.")
    assert [line.split("|")[1].strip() for line in lines[6:]] == ["1", "2"]
    ms, images_per_second = (float(cell.replace(",", "")) for cell in lines[7].split("|")[2:4])
    assert images_per_second == pytest.approx(2000 / ms, rel=0.2)
