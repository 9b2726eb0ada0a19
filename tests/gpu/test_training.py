"""Training on a real GPU: a recorded step computes what its kernels do one by one. Skipped without a GPU."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.conftest import write_images
from tests.training.runs.test_run import RECIPE
from training.augmentation.mixing import Batch
from training.hardware.devices import Hardware, choose
from training.hardware.process_group import World
from training.networks.resnet import ResNet, build
from training.recipes.recipe import Recipe
from training.runs.options import Interrupted, Options
from training.runs.progress import Progress
from training.runs.run import run
from training.runs.sanity_checks import dry_run, overfit_batch
from training.trainer.gradients import ParallelGradients
from training.weights.checkpoint import load_latest

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or no PyTorch for one"),
    pytest.mark.timeout(300),
]


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_images(tmp_path / "colours", each=40)


def chosen(precision: str = "fp32", *, recorded: bool = True) -> Hardware:
    return dataclasses.replace(choose(precision, "off", 2), recorded=recorded)


def batches(count: int, *, mixed: bool) -> list[Batch]:
    random = torch.Generator().manual_seed(1)
    made = []
    for number in range(count):
        images = torch.randn(16, 3, 32, 32, generator=random).to("cuda", memory_format=torch.channels_last)
        labels = torch.randint(0, 4, (16,), generator=random).cuda()
        made.append(Batch(images, labels, labels.flip(0), 0.1 * number) if mixed else Batch(images, labels))
    return made


def steps(hardware: Hardware, micro_batches: int, *, mixed: bool) -> tuple[ResNet, list[Tensor]]:
    """Return a network after three batches, with the gradients of the last one, and what each batch's loss was."""
    torch.manual_seed(0)
    model = build("resnet8", num_classes=4).cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    replicas = ParallelGradients(model, hardware, World())
    numbers = [
        replicas.compute_gradients(batch, whole=16, micro_batches=micro_batches, label_smoothing=0.1)
        for batch in batches(3, mixed=mixed)
    ]
    return model, numbers


@pytest.mark.parametrize("micro_batches", [1, 3])  # of 16 images, so that the parts have two sizes
@pytest.mark.parametrize("mixed", [False, True])
def test_a_recorded_step_computes_what_its_kernels_compute(micro_batches: int, mixed: bool) -> None:
    recorded, losses = steps(chosen(), micro_batches, mixed=mixed)
    plain, other_losses = steps(chosen(recorded=False), micro_batches, mixed=mixed)
    torch.testing.assert_close(losses, other_losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(recorded.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-5)
    for one, other in zip(recorded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_gpu_computes_what_a_cpu_computes() -> None:
    torch.manual_seed(0)
    model = build("resnet8", num_classes=4)
    on_cpu = ParallelGradients(model, dataclasses.replace(chosen(recorded=False), device="cpu"), World())
    batch = batches(1, mixed=False)[0]
    expected = on_cpu.compute_gradients(Batch(batch.images.cpu(), batch.labels.cpu()), whole=16, label_smoothing=0.1)
    torch.manual_seed(0)
    on_gpu = build("resnet8", num_classes=4).cuda()
    found = ParallelGradients(on_gpu, chosen(), World()).compute_gradients(batch, whole=16, label_smoothing=0.1)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(on_gpu.parameters(), model.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad.cpu(), other.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_that_was_stopped_ends_where_one_that_was_not_does(
    precision: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, steps=8)
    hardware = choose(precision, "off", 2, deterministic=True)
    whole = run(recipe, Options(out=tmp_path / "whole", data=images), hardware, Progress())
    assert whole["hardware"]["recorded"] is (precision != "fp16")
    stop_after_four_steps(monkeypatch)
    with pytest.raises(Interrupted):
        run(recipe, Options(out=tmp_path / "cut", data=images), hardware, Progress())
    monkeypatch.undo()
    run(recipe, Options(out=tmp_path / "cut", data=images, resume=True), hardware, Progress())
    one, other = load_latest(tmp_path / "whole"), load_latest(tmp_path / "cut")
    assert one is not None and other is not None and one.step == other.step == 8
    torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=0)


def stop_after_four_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.runs import run as run_module
    from training.trainer.loop import Training

    train = Training.train

    def one_step(training: Training, count: int, batch: Batch | None = None) -> None:
        train(training, count, batch)
        if training.step >= 4:
            training.stop.request()

    monkeypatch.setattr(Training, "train", one_step)
    monkeypatch.setattr(run_module, "_MOST_STEPS_BETWEEN_LOOKS", 1)


def test_the_trial_runs_work(images: Path, tmp_path: Path) -> None:
    options = Options(out=tmp_path / "run", data=images)
    dry_run(RECIPE, options, choose("bf16", "off", 2), Progress(), World())
    overfit_batch(RECIPE, options, choose("bf16", "off", 2), Progress(), World())
    assert not (tmp_path / "run").exists()


def test_every_kind_of_augmentation_runs(images: Path, tmp_path: Path) -> None:
    everything: Recipe = dataclasses.replace(
        RECIPE,
        steps=4,
        trivial_augment=True,
        pca_colour=0.1,
        random_erasing=0.5,
        mixup=0.2,
        cutmix=1.0,
        ema_decay=0.9,
        ema_every=1,
        clip_norm=1.0,
        precise_bn_images=16,
    )
    run(everything, Options(out=tmp_path / "run", data=images), choose("bf16", "off", 2), Progress())
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["hardware"]["device"] == "cuda" and facts["gradient_norms"]["1"]
