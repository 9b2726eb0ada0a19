"""`train-resnet archive`: what is kept of a run, and what it is still good for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from training.cli import main
from training.networks.resnet import build, load_weights
from training.weights.checkpoint import find_weights, read_weights


def archive(run: Path, out: Path) -> Result:
    return CliRunner().invoke(main, ["archive", str(run), str(out)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "metrics.jsonl"):
        (folder / name).write_text(name)
    save_file(build("resnet20").state_dict(), folder / "weights.safetensors")
    return folder


def test_layers_are_kept_in_half_and_vectors_as_they_are(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept" / "mine"
    result = archive(run, out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["metrics.jsonl", "run.json", "weights.safetensors"]
    assert (out / "run.json").read_text() == "run.json"
    before, after = read_weights(find_weights(run)), read_weights(find_weights(out))
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        is_layer = before[name].dim() >= 2
        assert tensor.dtype == (torch.float16 if is_layer else before[name].dtype)
        torch.testing.assert_close(tensor.to(before[name].dtype), before[name], rtol=1e-3, atol=1e-7)
    model = build("resnet20")
    load_weights(model, after)
    assert model.fc.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run, out: (run / "run.json").unlink(), "has no run.json; give a run folder"),
        (lambda run, out: (run / "weights.safetensors").unlink(), "holds no checkpoint"),
        (lambda run, out: (out.mkdir(), (out / "file").touch()), "already has files; give another folder"),
    ],
)
def test_what_cannot_be_archived_is_one_line_and_writes_nothing(
    run: Path, tmp_path: Path, spoil: object, message: str
) -> None:
    out = tmp_path / "kept"
    spoil(run, out)  # type: ignore[operator]
    result = archive(run, out)
    assert result.exit_code == 1
    assert message in result.output
    assert not (out / "weights.safetensors").exists()


def test_a_weight_beyond_half_precision_is_refused(run: Path, tmp_path: Path) -> None:
    weights = read_weights(find_weights(run))
    weights["conv1.weight"] = weights["conv1.weight"] * 1e6
    save_file(weights, run / "weights.safetensors")
    result = archive(run, tmp_path / "kept")
    assert result.exit_code == 1 and "conv1.weight has a value above 65,504" in result.output
    assert not (tmp_path / "kept").exists()
