"""Memory in use and its limit, from made-up control groups and from this machine."""

from pathlib import Path

import pytest

from service.system.memory import Memory, memory

MACHINE = "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  400 kB\n"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(MACHINE)
    return file


def group(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_group_of_version_2_counts_without_the_cache_of_files(tmp_path: Path, machine: Path) -> None:
    stat = "anon 10\ninactive_file 30000\n"
    own = group(tmp_path / "own", memory__max="500000\n", memory__current="100000\n", memory__stat=stat)
    assert memory([own], machine) == Memory(70_000, 500_000)


def test_a_group_of_version_1_counts_the_groups_below_it_too(tmp_path: Path, machine: Path) -> None:
    own = group(
        tmp_path / "own",
        memory__limit_in_bytes="500000",
        memory__usage_in_bytes="100000",
        memory__stat="inactive_file 1\ntotal_inactive_file 20000\n",
    )
    assert memory([own], machine) == Memory(80_000, 500_000)


def test_the_smallest_limit_decides(tmp_path: Path, machine: Path) -> None:
    stat = "inactive_file 0\n"
    own = group(tmp_path / "own", memory__max="900000", memory__current="5", memory__stat=stat)
    above = group(tmp_path / "above", memory__max="700000", memory__current="600000", memory__stat=stat)
    assert memory([own, above], machine) == Memory(600_000, 700_000)


@pytest.mark.parametrize("limit", ["max\n", str(2**63 - 4096)])
def test_without_a_limit_the_machine_counts(tmp_path: Path, machine: Path, limit: str) -> None:
    own = group(
        tmp_path / "own",
        memory__max=limit,
        memory__current="5",
        memory__limit_in_bytes=limit,
        memory__usage_in_bytes="5",
        memory__stat="inactive_file 0\ntotal_inactive_file 0\n",
    )
    assert memory([own], machine) == Memory(600 * 1024, 1000 * 1024)


def test_a_system_without_such_files_has_a_limit_all_the_same(tmp_path: Path) -> None:
    found = memory([], tmp_path / "absent")
    assert found.used == 0
    assert found.limit > 100_000_000


def test_this_machine_has_memory() -> None:
    found = memory()
    assert 0 < found.used <= found.limit
