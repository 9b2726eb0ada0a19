"""Copies of what serves: kept as long as somebody serves them, in whatever process, and then removed."""

import fcntl
import os
from pathlib import Path

from service.model_files.local_copies import find_copy, lock, prune, store


def test_a_copy_stays_while_this_or_another_server_serves_it(tmp_path: Path) -> None:
    for digest in ("mine", "theirs", "nobodys"):
        store(tmp_path, digest, digest.encode())
    theirs = os.open(tmp_path / "models" / "theirs" / "model.onnx", os.O_RDONLY)
    fcntl.flock(theirs, fcntl.LOCK_SH)
    lock(tmp_path, ["mine"])
    prune(tmp_path)
    assert [find_copy(tmp_path, digest) for digest in ("mine", "theirs", "nobodys")] == [b"mine", b"theirs", None]
    os.close(theirs)
    lock(tmp_path, [])
    prune(tmp_path)
    assert [find_copy(tmp_path, digest) for digest in ("mine", "theirs")] == [None, None]


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store(tmp_path / "file", "mine", b"x")
    lock(tmp_path / "file", ["mine"])
    prune(tmp_path / "file")
    assert find_copy(tmp_path / "file", "mine") is None
