"""TensorRT's engines: kept only when finished, one builder at a time, and word of it for those who wait."""

import threading
from pathlib import Path

import pytest

from service.engine import gpu_loading as gpu_start
from service.engine.cuda_device import Gpu
from service.engine.gpu_loading import engine_key
from service.engine.provider_options import profile_shapes
from service.engine.tensorrt_cache import engine_folder, reported

PROFILE = profile_shapes(32, 32, 8)


def test_engines_that_were_finished_are_found_again(tmp_path: Path) -> None:
    with engine_folder(tmp_path, "key") as folder:
        assert folder is not None
        (folder / "engine").write_text("built")
    with engine_folder(tmp_path, "key") as folder:
        assert folder is not None
        assert (folder / "engine").read_text() == "built"


def test_an_engine_whose_building_failed_is_built_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), engine_folder(tmp_path, "key") as folder:
        assert folder is not None
        (folder / "engine").write_text("half of it")
        raise RuntimeError("killed")
    with engine_folder(tmp_path, "key") as folder:
        assert folder is not None
        assert list(folder.iterdir()) == []


def test_one_process_builds_and_the_others_wait_for_it(tmp_path: Path) -> None:
    order: list[str] = []
    second_is_waiting = threading.Event()

    def build_too() -> None:
        second_is_waiting.set()
        with engine_folder(tmp_path, "key"):
            order.append("second")

    with engine_folder(tmp_path, "key"):
        other = threading.Thread(target=build_too)
        other.start()
        second_is_waiting.wait(10)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_where_nothing_can_be_kept_engines_are_built_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with engine_folder(tmp_path / "file", "key") as folder:
        assert folder is None
    assert caplog.messages == [
        f"{tmp_path / 'file'} cannot be written, so TensorRT builds its engines again at each start"
    ]
    with engine_folder(None, "key") as folder:
        assert folder is None


def test_an_engine_is_good_for_everything_that_it_was_built_with_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {engine_key("a" * 64, "fp32", PROFILE), engine_key("b" * 64, "fp32", PROFILE)}
    keys |= {engine_key("a" * 64, "fp16", PROFILE), engine_key("a" * 64, "fp32", profile_shapes(32, 32, 16))}
    for name, value in (
        ("runtime_version", lambda: "9.9"),
        ("tensorrt_version", lambda: "9.9"),
        ("find_gpu", lambda: Gpu("Test GPU", "9.0")),
        ("find_gpu", lambda: Gpu("Test GPU", "8.9")),
        ("find_gpu", lambda: Gpu("Other GPU", "9.0")),
    ):
        monkeypatch.setattr(gpu_start, name, value)
        keys.add(engine_key("a" * 64, "fp32", PROFILE))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    keys.add(engine_key("a" * 64, "fp32", PROFILE))
    assert len(keys) == 10
    assert engine_key("a" * 64, "fp32", PROFILE) in keys


def test_a_long_activity_is_reported_while_it_lasts_and_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str | None] = []
    twice = threading.Event()

    def note(activity: str | None) -> None:
        told.append(activity)
        if len(told) == 2:
            twice.set()

    caplog.set_level("INFO")
    with reported("building engines", note, every_s=0.001):
        assert twice.wait(10)
    assert told[0] == "building engines: 0 s so far"
    assert told[-1] is None
    assert caplog.messages[0] == "building engines: 0 s so far"
    assert caplog.messages[-1].startswith("building engines: done after ")


def test_what_fails_is_not_reported_as_going_on(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str | None] = []
    with pytest.raises(RuntimeError), reported("building engines", told.append):
        raise RuntimeError("no")
    assert told[-1] is None
    assert "done" not in caplog.text
