"""Training and export start as many threads and processes as their container may use, not as the machine has cores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from export.cli import main as export_main
from export.errors import ExportError
from export.graph import activation_ranges
from export.verification import evaluation
from service.images.preprocessing import usual_resizer
from tests.support.container import set_cpu_quota
from training.hardware.devices import choose
from training.hardware.process_group import World
from training.recipes.catalog import RECIPES
from training.runs.data_reader import Reader
from training.runs.progress import Progress


class Enough(Exception):
    """The number is known, and the rest does not matter."""


@pytest.fixture(autouse=True)
def quota_of_three_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    set_cpu_quota(monkeypatch, tmp_path / "groups", 3)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_training_computes_on_as_many_threads_as_the_quota_allows() -> None:
    hardware = choose("fp32", "off")
    if hardware.device == "cpu":
        assert hardware.evaluation_threads == 3
    assert hardware.threads == 3


def test_training_decodes_with_as_many_processes_as_the_quota_allows() -> None:
    recipe = RECIPES["modern-resnet20"]
    reader = Reader(recipe, World(), Progress(is_quiet=True), 0.2, "streamed", None, usual_resizer())
    assert reader.decoders.count == 3
    reader.close()


def test_an_exported_file_is_run_on_as_many_threads_as_the_quota_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "Engine", lambda _content, **options: options["intra_op_threads"])
    assert evaluation.engine_over(b"") == 3


def test_ranges_are_measured_on_as_many_threads_as_the_quota_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    def session(_model: bytes, options: Any, providers: list[str]) -> Any:
        assert providers == ["CPUExecutionProvider"] and options.intra_op_num_threads == 3
        raise Enough

    monkeypatch.setattr(activation_ranges.onnxruntime, "InferenceSession", session)
    with pytest.raises(Enough):
        activation_ranges.Histograms(onnx.ModelProto(), [], np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(("before", "expected"), [(64, 3), (1, 1)])  # of its own, PyTorch counts the machine's cores
def test_export_lets_pytorch_use_no_more_threads_than_the_quota_allows(
    monkeypatch: pytest.MonkeyPatch, before: int, expected: int
) -> None:
    seen: list[int] = []

    def choose_source(*_arguments: object) -> Any:
        seen.append(torch.get_num_threads())
        raise ExportError("enough")

    torch.set_num_threads(before)
    monkeypatch.setattr("export.resolve_source.choose", choose_source)
    CliRunner().invoke(export_main, ["--depth", "8", "--weights", "random"])
    assert seen == [expected]
