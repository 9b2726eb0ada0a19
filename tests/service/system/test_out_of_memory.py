"""The report of a killed process points at the memory limit where the kernel has killed, and nowhere else."""

from pathlib import Path

import pytest

from service.system.out_of_memory import hint_at_memory

V2 = ("memory.max", "memory.events")
V1 = ("memory/memory.limit_in_bytes", "memory/memory.oom_control")
KILLED = "low 0\noom 2\noom_kill 1\n"


def group(folder: Path, names: tuple[str, str], limit: str, events: str) -> list[Path]:
    for name, text in zip(names, (limit, events), strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return [folder, folder / "memory"]  # as v2 and v1 have them


@pytest.mark.parametrize("names", [V2, V1])
def test_a_kill_in_a_container_with_a_limit_names_the_limit_and_what_sets_it(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    hint = hint_at_memory(-9, group(tmp_path, names, "104857600\n", KILLED))
    for words in ("lack of memory", "100 MiB", "--memory", "MEMORY_LIMIT", "--processes"):
        assert words in hint


@pytest.mark.parametrize(("names", "limit"), [(V2, "max\n"), (V1, "9223372036854771712\n")])
def test_a_kill_without_a_limit_points_at_the_kernels_log(tmp_path: Path, names: tuple[str, str], limit: str) -> None:
    hint = hint_at_memory(-9, group(tmp_path, names, limit, KILLED))
    assert "dmesg" in hint
    assert "MiB" not in hint


def test_outside_of_containers_a_kill_points_at_the_kernels_log(tmp_path: Path) -> None:
    assert "dmesg" in hint_at_memory(-9, [tmp_path])


@pytest.mark.parametrize("names", [V2, V1])
def test_where_the_kernel_has_not_killed_somebody_else_did(tmp_path: Path, names: tuple[str, str]) -> None:
    assert hint_at_memory(-9, group(tmp_path, names, "104857600\n", "oom_kill 0\n")) == ""


@pytest.mark.parametrize("code", [-11, -15, 0, 1, 70])
def test_other_ends_say_nothing_of_memory(tmp_path: Path, code: int) -> None:
    assert hint_at_memory(code, group(tmp_path, V2, "104857600\n", KILLED)) == ""


def test_the_smallest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for folder, limit in ((inner, "max\n"), (outer, "104857600\n")):
        folder.mkdir()
        group(folder, V2, limit, KILLED)
    assert "100 MiB" in hint_at_memory(-9, [inner, outer])
