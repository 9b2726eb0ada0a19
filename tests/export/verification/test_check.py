"""`export-onnx check` and `inspect`: a file is what its card claims, or one line says what is not."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import export.verification.check
from export.cli import main
from service.model_files.checksum import append_checksum
from tests.support.servers.running_service import running_service
from tests.training.conftest import write_images


def export_onnx(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.verification.check, "_TIMED_S", 1e-9)  # one run of each batch


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random network in all three precisions, in a folder of models."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    (folder / "labels.txt").write_text("blue\ngreen\nred\n")
    arguments = ("--depth", 8, "--weights", "random", "--labels", folder / "labels.txt")
    for precision in ("fp32", "fp16", "int8"):
        found[precision] = folder / precision / "1" / "model.onnx"
        result = export_onnx(*arguments, "--precision", precision, "--output", found[precision])
        assert result.exit_code == 0, result.output
    return found


def changed(file: Path, to: Path, change: Any, **card: Any) -> Path:
    """Write a copy with another graph or card, sealed as if it had been exported so."""
    model = onnx.load_from_string(file.read_bytes())
    change(model)
    entry = model.metadata_props[0]
    entry.value = json.dumps({**json.loads(entry.value), **card})
    del model.metadata_props[1:]  # the old checksum
    to.write_bytes(append_checksum(model.SerializeToString()))
    return to


def nothing(_model: onnx.ModelProto) -> None:
    pass


def failed_checks(file: Path, *options: object) -> list[str]:
    result = export_onnx("check", file, *options)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("export-onnx: ")]
    assert "differs from its card: " in line
    return line.split("its card: ")[1].split(", ")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_fresh_file_passes_every_check(files: dict[str, Path], precision: str) -> None:
    result = export_onnx("check", files[precision])
    assert result.exit_code == 0, result.output
    assert "FAILED" not in result.stdout
    for name in (
        "checksum",
        "ONNX checker",
        "operator domains",
        "external data",
        "golden example",
        "batches of 1 to 16",
    ):
        assert f"ok  {name} " in result.stdout
    assert result.stdout.count("images/s") == 2


def test_accuracy_is_measured_on_the_images_given_and_held_against_the_claim(
    files: dict[str, Path], tmp_path: Path
) -> None:
    data = write_images(tmp_path / "colours", each=20)
    result = export_onnx("check", files["fp32"], "--data", data)
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if " accuracy " in line)
    assert "not measured" in row and "of 60, colours" in row
    found = float(row.split("not measured")[1].split("%")[0]) / 100
    claim = {"top1": found, "top5": 1.0, "images": 60, "dataset": "x", "provider": "CPUExecutionProvider"}
    same = changed(files["fp32"], tmp_path / "same.onnx", nothing, accuracy=claim)
    assert export_onnx("check", same, "--data", data).exit_code == 0
    boasting = changed(files["fp32"], tmp_path / "boasting.onnx", nothing, accuracy={**claim, "top1": found + 0.01})
    assert failed_checks(boasting, "--data", data) == ["accuracy"]
    other_set = changed(files["fp32"], tmp_path / "few.onnx", nothing, accuracy={**claim, "top1": 0.999, "images": 999})
    assert failed_checks(other_set, "--data", data) == ["accuracy"]


def add_a_foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def change_a_bias(model: onnx.ModelProto) -> None:
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "network.fc.bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([5, 0, -5], np.float32), bias.name))


def keep_a_weight_outside(model: onnx.ModelProto) -> None:
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "network.fc.weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


@pytest.mark.parametrize(
    ("change", "card", "expected"),
    [
        (add_a_foreign_operator, {}, "operator domains"),
        (change_a_bias, {}, "golden example"),
        (keep_a_weight_outside, {}, "external data"),
        (nothing, {"precision": "int8"}, "precision of layers"),
        (nothing, {"labels": ["a", "b"], "golden": {"probabilities": [0.5, 0.5]}}, "classes"),
    ],
)
def test_a_sealed_file_that_is_not_what_it_claims_fails_the_check_for_it(
    files: dict[str, Path], tmp_path: Path, change: Any, card: dict[str, Any], expected: str
) -> None:
    assert expected in failed_checks(changed(files["fp32"], tmp_path / "changed.onnx", change, **card))


def compute_a_weight(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer.pop(0)
    model.graph.node.insert(0, helper.make_node("Constant", [], [weight.name], value=weight))


def lose_a_weight(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]


def lose_the_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def lose_the_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lose_a_weight, "ONNX checker"),
        (lose_the_outputs, "classes"),
        (lose_the_graph, "precision of layers"),
    ],
)
def test_a_sealed_file_with_another_graph_is_reported_without_a_traceback(
    files: dict[str, Path], tmp_path: Path, change: Any, expected: str
) -> None:
    file = changed(files["fp32"], tmp_path / "changed.onnx", change)
    assert expected in failed_checks(file)
    assert export_onnx("inspect", file).exit_code == 0


def test_a_weight_may_be_a_constant_of_the_graph(files: dict[str, Path], tmp_path: Path) -> None:
    file = changed(files["fp32"], tmp_path / "changed.onnx", compute_a_weight)
    for command in ("check", "inspect"):
        result = export_onnx(command, file)
        assert result.exit_code == 0, result.output


def test_an_incomplete_card_is_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    file = changed(files["fp32"], tmp_path / "changed.onnx", nothing, labels=[])
    for command in ("check", "inspect"):
        result = export_onnx(command, file)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "the model card is not valid at labels" in result.stderr


@pytest.mark.parametrize("command", ["check", "inspect"])
@pytest.mark.parametrize("damage", ["cut", "cut to nothing", "a bit", "a bit of the card", "longer", "text", "folder"])
def test_a_damaged_file_is_one_line_and_never_a_traceback(
    files: dict[str, Path], tmp_path: Path, command: str, damage: str
) -> None:
    content = bytearray(files["int8"].read_bytes())
    file = tmp_path / "damaged.onnx"
    if damage == "folder":
        file.mkdir()
    else:
        content[len(content) // 3 if damage == "a bit" else -300] ^= 1
        kept = {"cut": content[:5000], "cut to nothing": b"", "longer": files["int8"].read_bytes() + b"\0"}
        file.write_bytes(b"hello" if damage == "text" else kept.get(damage, content))
    result = export_onnx(command, file)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = result.output.splitlines()
    assert line.startswith(f"export-onnx: {file} ")
    assert line.endswith(("export it again", "give the path of a model.onnx"))


def test_inspect_says_what_is_in_a_file(files: dict[str, Path]) -> None:
    result = export_onnx("inspect", files["int8"])
    assert result.exit_code == 0, result.output
    for text in ("resnet8", "3 classes", "uint8", "batch x 32 x 32 x 3", "QuantizeLinear", "network.layer3.0.conv1"):
        assert text in result.stdout


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_inspect_gives_programs_one_json_object(files: dict[str, Path], precision: str) -> None:
    found = json.loads(export_onnx("inspect", files[precision], "--format", "json").stdout)
    assert found["size"] == files[precision].stat().st_size
    assert [layer["precision"] for layer in found["layers"]] == [precision] * 10
    assert found["layers"][0]["name"] == "network.conv1" and found["layers"][-1]["name"] == "network.fc"
    assert found["layers"][0]["shape"] == [16, 3, 3, 3]
    assert found["card"]["precision"] == precision
    assert found["operators"]["Conv"] == 9
    names = ["probabilities", "embedding", "top_indices", "class_maps", "energy"]
    assert [value["name"] for value in found["outputs"]] == names
    assert ("precision_loss" in found["card"]) and ((found["card"]["precision_loss"] is None) == (precision == "fp32"))


def test_a_provider_that_is_not_there_is_one_line_whose_advice_can_be_followed(files: dict[str, Path]) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the provider that should be missing")
    result = export_onnx("check", files["fp32"], "--provider", "cuda")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.rstrip().endswith("or choose --providers auto")
    assert export_onnx("check", files["fp32"], "--providers", "auto").exit_code == 0


def test_options_of_an_export_before_a_command_are_refused(files: dict[str, Path]) -> None:
    result = export_onnx("--depth", 8, "check", files["fp32"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--depth is for an export; check has options of its own" in result.stderr


@pytest.mark.parametrize("option", ["--calibration", "--target"])
def test_options_of_int8_are_refused_for_other_precisions(option: str) -> None:
    result = export_onnx("--depth", 8, "--weights", "random", option, "x86")
    assert result.exit_code == 1
    assert f"{option} is for --precision int8" in result.stderr


def test_every_precision_is_served_unchanged(files: dict[str, Path]) -> None:
    image = (Path(__file__).parents[2] / "fixtures" / "images" / "jpeg_420.jpg").read_bytes()
    with running_service(files["fp32"].parents[2], "--default-model", "fp32") as address:
        answers = {}
        for name in files:
            request = urllib.request.Request(
                f"{address}/classify?model={name}", image, {"content-type": "image/jpeg"}, method="POST"
            )
            with urllib.request.urlopen(request) as answer:
                answers[name] = json.load(answer)
    for name, answer in answers.items():
        assert answer["model"]["precision"] == name
        for one, other in zip(answer["predictions"], answers["fp32"]["predictions"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=0.05)
