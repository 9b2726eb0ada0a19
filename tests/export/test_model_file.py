"""Whenever the process ends, a name holds a whole file or none; versions count up and are never written twice."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from export.errors import ExportError
from export.model_file import write_file, write_next_version

ROOT = Path(__file__).parents[2]
OLD, NEW = b"old" * 1000, b"new" * 100_000

# Writes a file, but stands still at one system call, having said so.
STANDS_STILL = textwrap.dedent(
    """
    import os, pathlib, sys, time
    from export import model_file

    def stand_still(*_arguments, **_options):
        print("there", flush=True)
        time.sleep(600)

    step, call, target = sys.argv[1:]
    if step == "write":  # after half of it
        def half(path, content):
            with path.open("wb") as file:
                file.write(content[: len(content) // 2])
                file.flush()
                stand_still()
        model_file._write_through = half
    elif step == "fsync":
        os.fsync = stand_still
    else:
        pathlib.Path.rename = pathlib.Path.replace = stand_still
    getattr(model_file, call)(pathlib.Path(target), b"new" * 100_000)
    """
)


def kill_at(step: str, call: str, target: Path) -> None:
    """Start the writing in a process of its own, and kill it with signal 9 at this step."""
    command = [sys.executable, "-c", STANDS_STILL, step, call, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_an_export_killed_while_writing_leaves_the_old_file_whole(tmp_path: Path, step: str) -> None:
    target = tmp_path / "models" / "model.onnx"
    target.parent.mkdir()
    target.write_bytes(OLD)
    kill_at(step, "write_file", target)
    assert target.read_bytes() == OLD
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == ["model.onnx"]
    write_file(target, NEW)
    assert target.read_bytes() == NEW


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_an_export_killed_while_writing_a_version_leaves_no_version(tmp_path: Path, step: str) -> None:
    kill_at(step, "write_next_version", tmp_path / "pets-resnet20")
    left = list((tmp_path / "pets-resnet20").iterdir())
    assert all(path.name.startswith(".") for path in left)
    assert write_next_version(tmp_path / "pets-resnet20", NEW) == tmp_path / "pets-resnet20" / "1" / "model.onnx"


def test_a_file_is_written_into_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b" / "model.onnx", NEW)
    assert (tmp_path / "a" / "b" / "model.onnx").read_bytes() == NEW
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["model.onnx"]


def test_versions_count_up_from_the_highest_as_numbers(tmp_path: Path) -> None:
    for name in ("2", "10", "notes", ".11", "model.onnx"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    assert write_next_version(tmp_path / "pets", OLD).parent.name == "11"
    assert write_next_version(tmp_path / "pets", NEW).parent.name == "12"
    assert (tmp_path / "pets" / "11" / "model.onnx").read_bytes() == OLD


def test_exports_at_the_same_time_get_versions_of_their_own(tmp_path: Path) -> None:
    written: list[Path] = []
    start = threading.Barrier(8)

    def write(content: bytes) -> None:
        start.wait()
        written.append(write_next_version(tmp_path / "pets", content))

    threads = [threading.Thread(target=write, args=(bytes([index]) * 1000,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.parent.name) for path in written) == list(range(1, 9))
    assert sorted(path.read_bytes()[0] for path in written) == list(range(8))


def test_files_are_readable_by_the_user_that_serves(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = write_next_version(tmp_path / "pets", NEW)
        write_file(tmp_path / "model.onnx", NEW)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "model.onnx").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("version", [False, True])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path, version: bool) -> None:
    # A limit on the size of files stands in for a full disk; Python ignores the signal that comes with it.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ExportError, match=r"cannot write .*: File too large; make room or give another --output"):
            if version:
                write_next_version(tmp_path / "pets", NEW)
            else:
                write_file(tmp_path / "pets" / "model.onnx", NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "pets").iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"File exists|Not a directory"):
        write_file(tmp_path / "file" / "model.onnx", NEW)
    with pytest.raises(ExportError, match=r"File exists|Not a directory"):
        write_next_version(tmp_path / "file" / "pets", NEW)
