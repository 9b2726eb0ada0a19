"""Copies of what serves: kept as long as somebody serves them, in whatever process, and then removed."""

import fcntl
import os
from pathlib import Path

from service.model_files.local_copies import find_kept, forget_the_rest, hold, keep


def test_a_copy_stays_while_this_or_another_server_serves_it(tmp_path: Path) -> None:
    for digest in ("mine", "theirs", "nobodys"):
        keep(tmp_path, digest, digest.encode())
    theirs = os.open(tmp_path / "models" / "theirs" / "model.onnx", os.O_RDONLY)
    fcntl.flock(theirs, fcntl.LOCK_SH)
    hold(tmp_path, ["mine"])
    forget_the_rest(tmp_path)
    assert [find_kept(tmp_path, digest) for digest in ("mine", "theirs", "nobodys")] == [b"mine", b"theirs", None]
    os.close(theirs)
    hold(tmp_path, [])
    forget_the_rest(tmp_path)
    assert [find_kept(tmp_path, digest) for digest in ("mine", "theirs")] == [None, None]


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keep(tmp_path / "file", "mine", b"x")
    hold(tmp_path / "file", ["mine"])
    forget_the_rest(tmp_path / "file")
    assert find_kept(tmp_path / "file", "mine") is None
