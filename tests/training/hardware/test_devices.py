"""Precision and repeatability, chosen once for a run."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.runs.test_run import RECIPE
from training.hardware.devices import Hardware, choose
from training.runs.options import Options, RunError
from training.runs.progress import Progress
from training.runs.run import run
from training.runs.setup import _hardware_for
from training.weights.checkpoint import load_latest


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_float16_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="fp16 needs a GPU; on a CPU use bf16 or fp32"):
        choose("fp16")
    with pytest.raises(ValueError, match="--precision is auto, fp32, bf16 or fp16"):
        choose("int8")


def test_deterministic_is_a_switch_that_is_recorded(images: Path, tmp_path: Path) -> None:
    hardware = choose("fp32", "off", 2, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    facts = run(dataclasses.replace(RECIPE, steps=3), Options(out=tmp_path / "run", data=images), hardware, Progress())
    assert facts["hardware"]["deterministic"] is True
    choose("fp32", "off", 2)
    assert not torch.are_deterministic_algorithms_enabled()


def float16() -> Hardware:
    """Return float16 on this CPU, slowly: what choosing refuses, but it computes as a GPU does."""
    return dataclasses.replace(choose("fp32", "off", 2), precision="fp16")


def test_float16_trains_with_a_scaled_loss_and_true_gradients(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=4, clip_norm=1.0)
    facts = run(recipe, Options(out=tmp_path / "half", data=images), float16(), Progress())
    full = run(recipe, Options(out=tmp_path / "full", data=images), choose("fp32", "off", 2), Progress())
    saved = load_latest(tmp_path / "half")
    assert saved is not None and saved.state["scaler"]["scale"] == 2.0**12
    for name, norm in full["gradient_norms"]["1"].items():  # unscaled before they are clipped
        assert facts["gradient_norms"]["1"][name] == pytest.approx(norm, rel=0.05)


def test_a_gradient_that_overflows_in_float16_leaves_the_weights_and_halves_the_scale(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.loop._FIRST_LOSS_SCALE", 2.0**40)
    recipe = dataclasses.replace(RECIPE, steps=3, ema_decay=None)
    run(recipe, Options(out=tmp_path / "run", data=images), float16(), Progress())
    run(dataclasses.replace(recipe, steps=1), Options(out=tmp_path / "one", data=images), float16(), Progress())
    saved, one = load_latest(tmp_path / "run"), load_latest(tmp_path / "one")
    assert saved and one and saved.state["scaler"]["scale"] == 2.0**37
    assert torch.equal(saved.weights["fc.weight"], one.weights["fc.weight"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["gradient_norms"] == {}  # no number is infinite


def test_statistics_over_several_processes_are_refused_on_a_cpu(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, sync_bn=True)
    with pytest.raises(RunError, match="sync_bn needs GPUs, one for each process of torchrun; leave it out"):
        run(recipe, Options(out=tmp_path / "run", data=images), choose("fp32", "off", 1), Progress())


def test_synchronised_batch_norms_are_not_recorded() -> None:
    on_gpu = dataclasses.replace(choose("fp32", "off", 2), device="cuda", recorded=True)
    assert _hardware_for(RECIPE, on_gpu).recorded
    assert not _hardware_for(dataclasses.replace(RECIPE, sync_bn=True), on_gpu).recorded


def threads_inside(hardware: Hardware, parts: int) -> tuple[int, set[int]]:
    """Return how many threads compute so many parts, and how many cores PyTorch uses in each."""
    with hardware.pool(parts) as pool:
        both_run = threading.Barrier(pool._max_workers)

        def look(_part: int) -> int:
            both_run.wait(10)
            return torch.get_num_threads()

        return pool._max_workers, set(pool.map(look, range(pool._max_workers)))


@pytest.mark.parametrize(
    ("threads", "parts", "expected"),
    [(2, 2, (2, {1})), (1, 2, (1, {1})), (9, 1, (1, {9})), (9, 2, (2, {4})), (64, 2, (2, {32})), (4, 16, (4, {1}))],
)
def test_spare_cores_work_inside_the_parts(threads: int, parts: int, expected: tuple[int, set[int]]) -> None:
    before = torch.get_num_threads()
    assert threads_inside(dataclasses.replace(choose("fp32", "off", 2), threads=threads), parts) == expected
    torch.set_num_threads(before)


def test_a_compiled_network_computes_its_parts_one_after_the_other_on_all_cores() -> None:
    hardware = dataclasses.replace(choose("fp32", "off", 2), threads=8, compiled=True)
    assert threads_inside(hardware, 4) == (1, {8})


def test_the_quota_of_a_container_decides_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.hardware.devices.available_cores", lambda: 3)
    assert choose("fp32", "off").threads == 3
    assert choose("fp32", "off", processes=2).threads == 1


@pytest.mark.parametrize("batch_size", [24, 16])  # 24: three groups of 8; 16: one group
def test_what_a_training_gives_does_not_depend_on_the_number_of_cores(
    images: Path, tmp_path: Path, batch_size: int
) -> None:
    norm_batch = 8 if batch_size == 24 else None
    recipe = dataclasses.replace(RECIPE, steps=3, batch_size=batch_size, norm_batch=norm_batch, learning_rate=0.01)
    weights = []
    for threads in (1, 2, 9):
        options = Options(out=tmp_path / str(threads), data=images)
        facts = run(recipe, options, choose("fp32", "off", threads), Progress())
        assert facts["recipe"]["norm_batch"] == norm_batch
        saved = load_latest(options.out)
        assert saved is not None
        weights.append(saved.weights)
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=2e-3, atol=2e-4)  # sums in another order, six times
