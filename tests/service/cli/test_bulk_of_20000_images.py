"""A bulk run over 20,000 images: killed at 20 random moments, and in the memory of a run over 1,000."""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import image

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
IMAGES, FEW, KILLS = 20_000, 1_000, 20
MOST_GROWTH = 24 * 1024 * 1024  # bytes; the names of one folder take 20,000 x 0.2 kB of it


def written(folder: Path, count: int) -> list[str]:
    """Fill folders with links to a few images, of which one in ten is none; return the ids in order."""
    folder.mkdir()
    kinds = [image((25 * number, 90, 255 - 25 * number), "PNG") for number in range(9)] + [b"text"]
    for number, content in enumerate(kinds):
        (folder.parent / f"kind{number}").write_bytes(content)
    ids = []
    for number in range(count):
        name = f"{number % 7}/{number:05}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        os.link(folder.parent / f"kind{number % 10}", folder / name)
        ids.append(name)
    return sorted(ids)


def command(models: Path, out: Path, folder: Path) -> list[str]:
    words = [sys.executable, "-m", "service.cli.classify", "--models", models, "--out", out, "--resume", folder]
    return [str(word) for word in words]


def rows_of(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".parquet":
        rows: list[dict[str, Any]] = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
        return rows
    return [json.loads(line) for line in out.read_bytes().splitlines()]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_twenty_killed_runs_lose_and_double_no_id(models: Path, tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    expected = written(tmp_path / "in", IMAGES)
    out = tmp_path / f"answers.{ending}"
    rows = out if ending == "jsonl" else out.with_name(f"{out.name}.partial.jsonl")
    chance = random.Random(20)
    seen = []
    for _ in range(KILLS):
        started_with = rows.stat().st_size if rows.exists() else 0
        enough = started_with + chance.randrange(0, 300_000)  # of 5 MB
        with subprocess.Popen(command(models, out, tmp_path / "in"), stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not rows.exists() or rows.stat().st_size <= enough):
                time.sleep(0.001)
            process.kill()
        seen.append(rows.stat().st_size if rows.exists() else 0)
    assert seen == sorted(seen)
    assert len(set(seen)) > KILLS // 2, "the runs were killed at different moments"
    assert subprocess.run(command(models, out, tmp_path / "in"), check=False, capture_output=True).returncode == 0
    found = rows_of(out)
    assert [row["id"] for row in found] == expected
    assert sum(row.get("problem") is not None for row in found) == IMAGES // 10


def peak_bytes(models: Path, out: Path, folder: Path) -> int:
    """Return the most memory that a run has resident, in bytes."""
    peak = 0
    with subprocess.Popen(command(models, out, folder), stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
                peak = max(peak, int(found[1]) * 1024)
            time.sleep(0.005)
    assert process.returncode == 0
    return peak


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_number_of_images(
    models: Path, tmp_path: Path, ending: str, record_property: Callable[[str, object], None]
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    peaks = []
    for count in (FEW, IMAGES):
        (tmp_path / str(count)).mkdir()
        written(tmp_path / str(count) / "in", count)
        peaks.append(peak_bytes(models, tmp_path / f"{count}.{ending}", tmp_path / str(count) / "in"))
    record_property("peak_bytes", peaks)
    assert peaks[1] - peaks[0] < MOST_GROWTH, peaks
