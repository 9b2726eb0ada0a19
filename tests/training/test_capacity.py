from pathlib import Path

import pytest

from training import capacity
from training.capacity import free_memory, too_big


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
