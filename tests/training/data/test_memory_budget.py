from pathlib import Path

import pytest

from service.system import control_groups
from training.data import memory_budget as capacity
from training.data.memory_budget import free_memory, too_big


@pytest.fixture
def four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: 4_000_000_000)


@pytest.mark.usefixtures("four_gigabytes")
def test_a_set_is_too_big_when_its_pixels_would_take_too_much_of_the_free_memory(tmp_path: Path) -> None:
    assert too_big(50_000, 32, tmp_path) is None
    reason = too_big(1_281_167, 224, tmp_path)
    assert reason is not None and "192.9 GB" in reason and "1.6 GB of memory" in reason


@pytest.mark.usefixtures("four_gigabytes")
def test_processes_share_the_memory_of_their_machine(tmp_path: Path) -> None:
    assert too_big(8_000, 224, tmp_path) is None
    assert too_big(8_000, 224, tmp_path, processes=2) is not None


def test_a_set_that_the_disk_cannot_hold_is_too_big_unless_it_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: 1 << 60)
    monkeypatch.setattr(capacity, "_free_disk", lambda _folder: 1_000_000)
    reason = too_big(1_000, 32, tmp_path / "not" / "there")
    assert reason is not None and "disk" in reason
    assert too_big(1_000, 32, None) is None


def test_the_free_memory_of_this_machine_is_a_plausible_number() -> None:
    assert 10_000_000 < free_memory() < 1 << 50


@pytest.fixture
def control_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with much memory, and control groups that the test writes."""
    monkeypatch.setattr(capacity, "_free_on_the_machine", lambda: 1 << 50)
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    monkeypatch.setattr(control_groups, "_OWN", tmp_path / "own")
    return tmp_path


def test_a_limit_of_the_newer_kind_counts(control_group: Path) -> None:
    (control_group / "memory.max").write_text("2000000000\n")
    (control_group / "memory.current").write_text("1500000000\n")
    (control_group / "memory.stat").write_text("anon 1100000000\ninactive_file 400000000\n")
    assert free_memory() == 900_000_000


def test_a_limit_of_the_older_kind_counts(control_group: Path) -> None:
    (control_group / "own").write_text("4:memory:/docker/7\n")
    group = control_group / "memory" / "docker" / "7"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("2000000000\n")
    (group / "memory.usage_in_bytes").write_text("1500000000\n")
    (group / "memory.stat").write_text("cache 500000000\ntotal_inactive_file 300000000\n")
    assert free_memory() == 800_000_000
