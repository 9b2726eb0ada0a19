"""A model's speed is remembered: the shortest ever, by model and processor, and only where that is possible."""

from pathlib import Path

import pytest

from service.inference.latency_history import best_latency


def note(cache: Path, seconds: float, model: str = "a", processor: str = "p") -> float:
    return best_latency(cache, model=model, processor=processor, measured_s=seconds)


def test_a_busy_moment_does_not_make_a_model_slower(tmp_path: Path) -> None:
    assert note(tmp_path, 0.004) == 0.004
    assert note(tmp_path, 0.009) == 0.004
    assert note(tmp_path, 0.003) == 0.003
    assert note(tmp_path, 0.009) == 0.003


def test_each_model_and_each_processor_has_its_own(tmp_path: Path) -> None:
    note(tmp_path, 0.001)
    assert note(tmp_path, 0.5, model="b") == 0.5
    assert note(tmp_path, 0.7, processor="q") == 0.7


@pytest.mark.parametrize("content", ["", "fast", "-1", "0", "nan"])
def test_a_damaged_note_is_replaced(tmp_path: Path, content: str) -> None:
    note(tmp_path, 0.001)
    (file,) = (tmp_path / "speeds").iterdir()
    file.write_text(content)
    assert note(tmp_path, 0.5) == 0.5
    assert note(tmp_path, 0.9) == 0.5


def test_without_a_cache_what_was_measured_counts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert note(tmp_path / "file", 0.5) == 0.5
