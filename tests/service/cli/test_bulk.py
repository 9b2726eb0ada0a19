"""`classify --out`: each image of a large input has exactly one row, whatever ends the run."""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from service.cli import bulk, bulk_inputs
from service.cli import classify as cli
from service.cli.bulk_output import WrittenIds
from service.errors import EngineFailed
from service.inference.classifier import Classifier
from tests.service.conftest import image
from tests.support.model_files.tiny_model import tiny_model, write_tiny_model

RED, BLUE = (255, 0, 0), (0, 0, 255)
KILLS = 5


def run(*arguments: object) -> Result:
    command = typer.Typer()
    command.command()(cli.classify)
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def rows_of(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content
    return [json.loads(line) for line in content.splitlines()]


def ids_of(path: Path) -> list[str]:
    return [row["id"] for row in rows_of(path)]


def complaint(result: Result) -> str:
    """Return the one line of a run that could not go on."""
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if " images" not in line]
    assert line.startswith("classify: ")
    return line


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good images and two bad ones, in folders, beside what is no image."""
    files = {
        "b/blue.png": image(BLUE, "PNG"),
        "a.jpg": image(RED),
        "b/c d/red.JPEG": image(RED),
        "b/text.jpg": b"text",
        "empty.webp": b"",
        "notes.txt": b"text",
        ".hidden/red.jpg": image(RED),
        "b/._red.jpg": b"",
    }
    for name, content in files.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "in"


FOLDER_IDS = ["a.jpg", "b/blue.png", "b/c d/red.JPEG", "b/text.jpg", "empty.webp"]


def test_each_image_of_a_folder_has_a_row_with_its_relative_path(models: Path, folder: Path, out: Path) -> None:
    result = run("--models", models, "--top-k", 2, "--out", out, folder)
    assert (result.exit_code, result.stdout) == (0, "")
    rows = rows_of(out)
    assert [row["id"] for row in rows] == FOLDER_IDS
    assert [row["predictions"][0]["label"] for row in rows[:3]] == ["red", "blue", "red"]
    assert set(rows[0]) == {"id", "model", "predictions", "confident"}
    assert (rows[0]["model"], len(rows[0]["predictions"])) == ("tiny:1", 2)
    assert set(rows[0]["predictions"][0]) == {"label", "index", "probability"}


def test_a_bad_image_is_a_row_with_its_problem_and_no_failure(models: Path, folder: Path, out: Path) -> None:
    result = run("--models", models, "--out", out, folder)
    *_, text, empty = rows_of(out)
    assert text["problem"]["code"] == "not_an_image"
    assert empty == {"id": "empty.webp", "problem": {"code": "no_file", "detail": "The file is empty."}}
    assert "5 of 5 images, 2 with a problem" in result.stderr
    assert "images/s" in result.stderr


def test_the_answers_are_those_of_single_files(models: Path, folder: Path, out: Path) -> None:
    run("--models", models, "--out", out, folder)
    single = json.loads(run("--models", models, "--format", "json", folder / "a.jpg").stdout)
    first = rows_of(out)[0]
    assert (first["predictions"], first["confident"]) == (single["predictions"], single["confident"])


def test_ids_of_a_list_are_its_lines(
    models: Path, folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names = tmp_path / "list.txt"
    absolute = str(folder / "b" / "blue.png")
    names.write_bytes(f"\ufeffa.jpg\r\n\n{absolute}\nb/c d/red.JPEG\nno such.jpg\n-\na\0b".encode())
    assert run("--models", models, "--out", out, names).exit_code == 1  # of the NUL
    names.write_text(f"\ufeffa.jpg\r\n\n{absolute}\nb/c d/red.JPEG\nno such.jpg\n-")
    result = run("--models", models, "--out", out, names)
    assert result.exit_code == 0
    rows = rows_of(out)
    assert [row["id"] for row in rows] == ["a.jpg", absolute, "b/c d/red.JPEG", "no such.jpg", "-"]
    assert [row["problem"]["code"] for row in rows[3:]] == ["no_file", "no_file"]


def tar_of(folder: Path, path: Path, mode: str) -> Path:
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as archive:
        archive.add(folder, "in")
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_ids_of_an_archive_are_its_members(models: Path, folder: Path, out: Path, tmp_path: Path, mode: str) -> None:
    archive = tar_of(folder, tmp_path / "images", mode)
    assert run("--models", models, "--out", out, archive).exit_code == 0
    expected = {f"in/{name}" for name in FOLDER_IDS}
    assert set(ids_of(out)) == expected
    assert len(ids_of(out)) == len(expected)
    labels = {row["id"]: row["predictions"][0]["label"] for row in rows_of(out) if "predictions" in row}
    assert labels == {"in/a.jpg": "red", "in/b/blue.png": "blue", "in/b/c d/red.JPEG": "red"}
    whole = out.read_bytes()
    out.write_bytes(whole[:-10])
    assert run("--models", models, "--out", out, "--resume", archive).exit_code == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_archive_ends_the_run_after_the_rows_before(
    models: Path, out: Path, tmp_path: Path, mode: str
) -> None:
    with tarfile.open(tmp_path / "images.tar", mode) as archive:
        for number in range(4):
            member = tarfile.TarInfo(f"{number}.png")
            noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
            content = io.BytesIO()
            Image.fromarray(noise).save(content, "PNG")
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
    path = tmp_path / "images.tar"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.55)])
    assert "cannot be read at or after '" in complaint(run("--models", models, "--out", out, path))
    found = ids_of(out)
    assert found == [f"{number}.png" for number in range(len(found))]
    assert 1 <= len(found) <= 3


def test_a_header_that_is_damaged_is_no_end_of_an_archive(
    models: Path, folder: Path, out: Path, tmp_path: Path
) -> None:
    path = tar_of(folder, tmp_path / "images.tar", "w")
    content = path.read_bytes()
    place = content.index(b"in/b/text.jpg")
    path.write_bytes(content[:place] + b"x" + content[place + 1 :])
    assert "the next header is damaged" in complaint(run("--models", models, "--out", out, path))


def test_an_existing_file_is_kept_unless_it_is_resumed(models: Path, folder: Path, out: Path) -> None:
    out.write_text("kept")
    assert "--resume" in complaint(run("--models", models, "--out", out, folder))
    assert out.read_text() == "kept"


def test_an_incomplete_last_line_is_cut_and_answered_again(models: Path, folder: Path, out: Path) -> None:
    assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
    whole = out.read_bytes()
    ends = {0, 5, len(whole) - 1, len(whole), *random.Random(1).sample(range(len(whole)), 3)}
    for end in ends:
        out.write_bytes(whole[:end])
        assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
        assert out.read_bytes() == whole


def test_an_input_that_has_changed_gets_the_rows_that_are_missing(models: Path, folder: Path, out: Path) -> None:
    run("--models", models, "--out", out, folder)
    before = out.read_bytes()
    (folder / "aa.jpg").write_bytes(image(BLUE))
    (folder / "z.jpg").write_bytes(image(BLUE))
    (folder / "b" / "blue.png").unlink()
    for _ in range(2):
        assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
        assert out.read_bytes().startswith(before)
        assert ids_of(out) == [*FOLDER_IDS, "aa.jpg", "z.jpg"]


def test_every_row_is_found_in_any_order(tmp_path: Path) -> None:
    ids = [f"{number}.jpg" for number in range(3000)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(f'{{"id":"{name}","problem":{{}}}}\n' for name in ids))
    written = WrittenIds(path, path.stat().st_size, "tiny:1")
    assert not written.take("new.jpg")
    assert [name for name in reversed(ids) if not written.take(name)] == []
    assert not written.take("0.jpeg")


def test_a_killed_run_goes_on_without_a_lost_or_doubled_id(models: Path, out: Path, tmp_path: Path) -> None:
    content = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (250, 250, 3), np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    expected = []
    for number in range(500):
        name = f"{number % 3}/{number:03}.png"
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"text" if number % 10 == 0 else content.getvalue())
        expected.append(name)
    command = [sys.executable, "-m", "service.cli.classify", "--models", str(models), "--out", str(out), "--resume"]
    chance = random.Random(18)
    killed_midway = 0
    for _ in range(KILLS):
        started_with = out.stat().st_size if out.exists() else 0
        with subprocess.Popen([*command, tmp_path / "in"], stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not out.exists() or out.stat().st_size <= started_with):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
        killed_midway += 0 < len(out.read_bytes().splitlines()) < len(expected)
        os.truncate(out, out.stat().st_size - chance.choice((0, 1, 30)))  # as a write that was cut off
    assert killed_midway >= 2
    assert subprocess.run([*command, tmp_path / "in"], check=False, capture_output=True).returncode == 0
    assert ids_of(out) == sorted(expected)
    assert sum("problem" in row for row in rows_of(out)) == 50


def test_two_runs_do_not_write_to_one_file(models: Path, folder: Path, out: Path) -> None:
    held = bulk.AnswersFile(out, resume=False, model="tiny:1")
    assert "another run writes" in complaint(run("--models", models, "--out", out, "--resume", folder))
    held.close()


def test_rows_of_another_model_are_not_continued(tmp_path: Path, models: Path, folder: Path, out: Path) -> None:
    run("--models", models, "--out", out, folder)
    before = out.read_bytes()
    write_tiny_model(tmp_path / "models", "other")
    said = complaint(run("--models", tmp_path / "models", "--out", out, "--resume", folder))
    assert "has answers of tiny:1, and the model is now other:1" in said
    assert out.read_bytes() == before


def test_a_file_of_something_else_is_not_continued(models: Path, folder: Path, out: Path) -> None:
    out.write_text('{"name": "x"}\n')
    assert "line 1 of" in complaint(run("--models", models, "--out", out, "--resume", folder))
    assert out.read_text() == '{"name": "x"}\n'


def test_a_folder_of_any_size_is_listed_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_inputs, "_NAMES_AT_ONCE", 2)
    for number in range(7):
        (folder / "b" / f"{number}.jpg").write_bytes(b"")
    found = [item.id for item in bulk_inputs.open_input(str(folder))]
    assert found == ["a.jpg", *(f"b/{number}.jpg" for number in range(7)), *FOLDER_IDS[1:]]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are always UTF-8")
def test_names_that_are_not_utf_8_stay_distinct(models: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in (b"\xfe.jpg", b"\xff.jpg"):
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(image(RED))
    for _ in range(2):
        assert run("--models", models, "--out", out, "--resume", tmp_path / "in").exit_code == 0
        assert ids_of(out) == ["\\xfe.jpg", "\\xff.jpg"]


def test_an_answer_that_is_no_number_is_a_problem_of_its_image(tmp_path: Path, out: Path) -> None:
    write_tiny_model(tmp_path / "models", content=tiny_model(poison=True))
    (tmp_path / "in").mkdir()
    for name, colour in (("a.png", RED), ("b.png", (255, 255, 255)), ("c.png", RED)):
        (tmp_path / "in" / name).write_bytes(image(colour, "PNG"))
    assert run("--models", tmp_path / "models", "--out", out, tmp_path / "in").exit_code == 0
    assert [row.get("problem", {}).get("code") for row in rows_of(out)] == [None, "engine_failed", None]


def test_a_model_that_fails_ends_the_run_without_rows(
    models: Path, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EngineFailed("The model failed.")

    monkeypatch.setattr(Classifier, "answer_batch", fail)
    assert "the model failed on a batch" in complaint(run("--models", models, "--out", out, folder))
    assert out.read_bytes() == b""


def test_large_images_have_rows_in_their_place(models: Path, folder: Path, out: Path) -> None:
    (folder / "aa.jpg").write_bytes(image(BLUE, size=(2000, 1500)))
    (folder / "ab.jpg").write_bytes(image(BLUE, size=(2000, 1500))[:-5000])
    assert run("--models", models, "--out", out, folder).exit_code == 0
    rows = rows_of(out)
    assert [row["id"] for row in rows] == ["a.jpg", "aa.jpg", "ab.jpg", *FOLDER_IDS[1:]]
    assert rows[1]["predictions"][0]["label"] == "blue"


@pytest.mark.parametrize(
    ("options", "inputs", "said"),
    [
        (["--resume"], ["in"], "--resume needs --out"),
        (["--out", "a.jsonl", "--server", "http://localhost:1"], ["in"], "leave out --server"),
        (["--out", "a.jsonl"], ["in", "in"], "not 2"),
        (["--out", "a.jsonl"], ["nowhere"], "nowhere cannot be read: No such file"),
        (["--out", "a.jsonl"], ["in/a.jpg"], "in/a.jpg is no folder, list of paths or tar archive"),
        (["--out", "no/a.jsonl"], ["in"], "no/a.jsonl cannot be written: No such file"),
        (["--out", "/dev/null", "--resume"], ["in"], "/dev/null is not a file"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    models: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    inputs: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(folder.parent)
    assert said in complaint(run("--models", models, *options, *inputs))
    assert not Path("a.jsonl").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_ends_the_run_after_the_rows_before(models: Path, folder: Path, out: Path) -> None:
    (folder / "b").chmod(0)
    try:
        assert "b cannot be read: Permission denied" in complaint(run("--models", models, "--out", out, folder))
    finally:
        (folder / "b").chmod(0o755)
    assert ids_of(out) == ["a.jpg"]
    assert run("--models", models, "--out", out, "--resume", folder).exit_code == 0
    assert ids_of(out) == FOLDER_IDS
