"""Folders that a host makes for itself: whole or not there, checked at each use, and open to nobody else."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.system import cache as private_cache
from service.system.cache import (
    cache_root,
    find_or_make,
    has_valid_checksum,
    key_of,
    private_folder,
    remove_old_entries,
)


def write(folder: Path) -> None:
    (folder / "data").write_text("the data")


def must_not_be_made(folder: Path) -> None:
    pytest.fail("it was made a second time")


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    entry = find_or_make(tmp_path, "kind", "key", write)
    assert (entry / "data").read_text() == "the data"
    assert find_or_make(tmp_path, "kind", "key", must_not_be_made) == entry


def test_only_its_owner_can_write_to_the_folder(tmp_path: Path) -> None:
    entry = find_or_make(tmp_path / "root", "kind", "key", write)
    assert entry.parent.stat().st_mode & 0o077 == 0
    entry.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by other users"):
        find_or_make(tmp_path / "root", "kind", "key", write)


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root" / "kind").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="kind"):
        private_folder(tmp_path / "root", "kind")


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "more", "undigested"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    entry = find_or_make(tmp_path, "kind", "key", write)
    if damage in ("changed", "cut"):
        (entry / "data").write_text("the date" if damage == "changed" else "the")
    elif damage == "more":
        (entry / "other").write_text("")
    else:
        (entry / ("data" if damage == "gone" else "digests.json")).unlink()
    assert not has_valid_checksum(entry)
    assert (find_or_make(tmp_path, "kind", "key", write) / "data").read_text() == "the data"
    assert has_valid_checksum(entry)
    assert [path.name for path in entry.parent.iterdir()] == ["key"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        find_or_make(tmp_path, "kind", "key", fail)
    assert list((tmp_path / "kind").iterdir()) == []


def test_two_that_make_the_same_entry_at_once_both_get_it(tmp_path: Path) -> None:
    both_are_making = threading.Barrier(2)

    def make(folder: Path) -> None:
        both_are_making.wait(10)
        write(folder)

    with ThreadPoolExecutor(2) as threads:
        entries = list(threads.map(lambda _: find_or_make(tmp_path, "kind", "key", make), range(2)))
    assert entries[0] == entries[1]
    assert has_valid_checksum(entries[0])
    assert [path.name for path in (tmp_path / "kind").iterdir()] == ["key"]


def test_what_was_not_used_for_a_month_goes_and_what_dead_processes_left_goes_sooner(tmp_path: Path) -> None:
    for name, age_days in (("used", 29), ("unused", 31), (".being-made", 0.01), (".abandoned", 1)):
        (tmp_path / name).mkdir()
        last = time.time() - age_days * 24 * 3600
        os.utime(tmp_path / name, (last, last))
    remove_old_entries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".being-made", "used"]


def test_use_keeps_an_entry_young(tmp_path: Path) -> None:
    entry = find_or_make(tmp_path, "kind", "key", write)
    os.utime(entry, (1, 1))
    find_or_make(tmp_path, "kind", "key", must_not_be_made)
    assert entry.stat().st_mtime > 1


def test_a_key_follows_from_every_part() -> None:
    keys = {key_of(a="1", b="2"), key_of(a="2", b="1"), key_of(a="12", b=""), key_of(a="1"), key_of(b="2", a="1")}
    assert len(keys) == 4


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "resnet-service"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_root() == Path.home() / ".cache" / "resnet-service"


def test_a_full_disk_is_noticed_before_an_entry_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_cache.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        find_or_make(tmp_path, "kind", "key", write)
    assert list((tmp_path / "kind").iterdir()) == []


def test_a_cache_that_became_read_only_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    entry = find_or_make(tmp_path, "kind", "key", write)
    monkeypatch.setattr(private_cache.os, "utime", refuse)
    assert find_or_make(tmp_path, "kind", "key", must_not_be_made) == entry
    shutil.rmtree(entry)
