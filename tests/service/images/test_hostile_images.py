"""Whatever bytes come in, they are refused or become pixels, cheaply, in little memory and without a telling word."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.image_files.hostile_images import hostile

ROOT = Path(__file__).parents[3]
# Addresses, absolute paths, tracebacks, and the names of libraries and of Python's exceptions.
TELLING = re.compile(
    r"0x[0-9a-f]{4}|(^|\s)/\w|\\|Traceback|PIL|Pillow|zlib|libjpeg|libwebp|Error|Exception|<", re.IGNORECASE
)


def decoded_in_a_child(kind: str, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-W", "error", "-m", "tests.support.image_files.decode_child", kind, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.returncode == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    return {result["name"]: result for result in decoded_in_a_child("hostile")}


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_file_gets_its_answer_within_one_cpu_second(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    expected = hostile()[name][1]
    result = outcomes[name]
    assert result["status"] in ((200, 415, 422) if expected is None else (expected,)), result
    assert result["cpu_s"] < 1.0, result


def test_no_refusal_says_more_than_the_client_needs(outcomes: dict[str, dict[str, Any]]) -> None:
    messages = {result["message"] for result in outcomes.values() if result["status"] != 200}
    assert len(messages) > 10
    for message in messages:
        assert not TELLING.search(message), message
        assert message.endswith(".") and "\n" not in message


def test_damaged_images_are_refused_or_become_pixels() -> None:
    *failures, summary = decoded_in_a_child("fuzz", "2000")
    assert failures == []
    assert summary["count"] == 2000
    assert set(summary["statuses"]) == {"200", "415", "422"}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_more_damaged_images_are_refused_or_become_pixels() -> None:
    *failures, summary = decoded_in_a_child("fuzz", "100000")
    assert failures == []
    assert summary["count"] == 100_000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_dearest_images_within_the_limits_take_less_than_a_cpu_second() -> None:
    for result in decoded_in_a_child("giants"):
        assert result["status"] == 200, result
        assert result["cpu_s"] < 1.0, result
