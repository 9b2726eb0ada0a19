"""`classify --out answers.parquet`: the rows of the JSON Lines, in a file that is whole or not there."""

import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.cli import bulk, bulk_parquet
from tests.service.cli.test_bulk import BLUE, FOLDER_IDS, RED, complaint, folder, run
from tests.service.conftest import image

pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
__all__ = ["folder"]  # a fixture
KILLS = 5


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.parquet"


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def ids_of(path: Path) -> list[str]:
    return [row["id"] for row in rows_of(path)]


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial.jsonl")


def test_the_rows_are_those_of_the_json_lines(models: Path, folder: Path, out: Path, tmp_path: Path) -> None:
    assert run("--models", models, "--out", out, folder).exit_code == 0
    assert run("--models", models, "--out", tmp_path / "answers.jsonl", folder).exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_bytes().splitlines()]
    found = [{name: value for name, value in row.items() if value is not None} for row in rows_of(out)]
    expected = [{name: value for name, value in row.items() if value is not None} for row in lines]
    assert [row["id"] for row in found] == FOLDER_IDS
    assert found == expected
    assert sorted(os.listdir(tmp_path)) == ["answers.jsonl", "answers.parquet", "in"]


def test_row_groups_are_limited_so_that_memory_is(
    models: Path, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_parquet, "_GROUP_BYTES", 1024)
    for number in range(20):
        (folder / f"c{number:02}.png").write_bytes(image(RED, "PNG"))
    assert run("--models", models, "--out", out, folder).exit_code == 0
    with pq.ParquetFile(out) as file:
        assert file.num_row_groups > 3
        assert file.metadata.num_rows == 25
    assert ids_of(out) == sorted(FOLDER_IDS + [f"c{number:02}.png" for number in range(20)])


def test_an_input_without_images_is_a_file_without_rows(models: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert run("--models", models, "--out", out, tmp_path / "in").exit_code == 0
    assert rows_of(out) == []
    assert pq.read_schema(out).names == ["id", "model", "predictions", "confident", "problem"]


def test_a_complete_file_is_kept_unless_it_is_resumed(models: Path, folder: Path, out: Path) -> None:
    assert run("--models", models, "--out", out, folder).exit_code == 0
    before = out.read_bytes()
    assert "exists; continue it with --resume" in complaint(run("--models", models, "--out", out, folder))
    assert out.read_bytes() == before


def test_a_complete_file_gets_the_rows_that_are_missing(models: Path, folder: Path, out: Path) -> None:
    assert run("--models", models, "--out", out, folder).exit_code == 0
    before = rows_of(out)
    (folder / "aa.jpg").write_bytes(image(BLUE))
    for _ in range(2):
        assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
        assert rows_of(out)[: len(before)] == before
        assert ids_of(out) == [*FOLDER_IDS, "aa.jpg"]
        assert not journal_of(out).exists()


def test_an_interrupted_run_is_not_begun_again_by_mistake(models: Path, folder: Path, out: Path) -> None:
    journal_of(out).write_bytes(b"")
    assert "partial.jsonl exists; continue it with --resume" in complaint(run("--models", models, "--out", out, folder))
    assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
    assert ids_of(out) == FOLDER_IDS


def test_rows_that_are_left_after_the_file_was_written_are_written_again(
    models: Path, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can be killed between the new name of the file and the removal of the rows."""
    with monkeypatch.context() as patch:
        patch.setattr(bulk_parquet, "write_parquet", lambda *_: None)
        patch.setattr(bulk, "write_parquet", lambda *_: None)
        assert run("--models", models, "--out", out, folder).exit_code == 0
    kept = journal_of(out).read_bytes()
    assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
    journal_of(out).write_bytes(kept)
    assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
    assert ids_of(out) == FOLDER_IDS
    assert not journal_of(out).exists()


def test_a_file_of_something_else_is_not_continued(models: Path, folder: Path, out: Path) -> None:
    out.write_bytes(b"text")
    said = complaint(run("--models", models, "--out", out, "--resume", folder))
    assert "cannot be read or written as Parquet" in said
    pq.write_table(pa.table({"x": [1]}), out)
    assert "has other columns" in complaint(run("--models", models, "--out", out, "--resume", folder))
    assert sorted(path.name for path in out.parent.iterdir()) == ["answers.parquet", "in"]


def test_names_that_json_escapes_are_kept(models: Path, out: Path, tmp_path: Path) -> None:
    names = ['a"b\\c.png', "d\ne.png", "f\u0001g.png", "h 2026-01-01.png", "日本 😀.png", "1.5.png"]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_bytes(image(RED, "PNG"))
    assert run("--models", models, "--out", out, tmp_path / "in").exit_code == 0
    assert ids_of(out) == sorted(names)


def test_without_pyarrow_the_extra_is_named(
    models: Path, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_parquet.importlib.util, "find_spec", lambda _: None)
    said = complaint(run("--models", models, "--out", out, folder))
    assert "pyarrow is not installed" in said
    assert "the extra parquet" in said
    assert os.listdir(out.parent) == ["in"]


def test_a_killed_run_goes_on_without_a_lost_or_doubled_id(models: Path, out: Path, tmp_path: Path) -> None:
    content = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    expected = [f"{number:03}.png" for number in range(400)]
    (tmp_path / "in").mkdir()
    for name in expected:
        (tmp_path / "in" / name).write_bytes(content.getvalue())
    journal = journal_of(out)
    command = [sys.executable, "-m", "service.cli.classify", "--models", str(models), "--out", str(out), "--resume"]
    chance = random.Random(18)
    for _ in range(KILLS):
        started_with = journal.stat().st_size if journal.exists() else 0
        with subprocess.Popen([*command, tmp_path / "in"], stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not journal.exists() or journal.stat().st_size <= started_with):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
    assert subprocess.run([*command, tmp_path / "in"], check=False, capture_output=True).returncode == 0
    assert ids_of(out) == expected
