"""The configuration for NVIDIA Triton says what the model file is; a server of this project does not mind it."""

import re
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from export.triton_config import CONFIG_FILE, MAX_BATCH, triton_config, write_triton_config
from service.model_files.serving_set import find_models
from tests.export.conftest import Converted

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = ["cifar10-resnet20", "cifar10-resnet56", "everyday-resnet18-int8"]
TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}

_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*("(?:[^"\\]|\\.)*"|[\w.+-]+|[{}\[\]:,])')


def parse(text: str) -> dict[str, list[Any]]:
    """Read protobuf's text format: each field with the list of its values, messages as dictionaries."""
    tokens = _TOKEN.findall(text)
    assert "".join(_TOKEN.sub(r"\1", text).split()) == "".join("".join(tokens).split())
    message = _message(tokens)
    assert not tokens
    return message


def _message(tokens: list[str]) -> dict[str, list[Any]]:
    fields: dict[str, list[Any]] = {}
    while tokens and tokens[0] != "}":
        name = tokens.pop(0)
        assert name.isidentifier(), name
        if is_scalar := tokens[0] == ":":
            tokens.pop(0)
        values = _list(tokens) if tokens[0] == "[" else [_value(tokens)]
        assert is_scalar or all(isinstance(value, dict) for value in values)
        fields.setdefault(name, []).extend(values)
    return fields


def _list(tokens: list[str]) -> list[Any]:
    assert tokens.pop(0) == "["
    values = [_value(tokens)]
    while tokens[0] == ",":
        tokens.pop(0)
        values.append(_value(tokens))
    assert tokens.pop(0) == "]"
    return values


def _value(tokens: list[str]) -> Any:
    word = tokens.pop(0)
    if word == "{":
        message = _message(tokens)
        assert tokens.pop(0) == "}"
        return message
    return word.strip('"') if word.startswith('"') else int(word) if word.lstrip("-").isdigit() else word


def tensors(config: dict[str, list[Any]], field: str) -> list[tuple[str, str, list[int]]]:
    return [(tensor["name"][0], tensor["data_type"][0], tensor["dims"]) for tensor in config[field]]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_has_a_configuration_that_fits_it(name: str) -> None:
    folder = MODELS / name
    config = parse((folder / CONFIG_FILE).read_text())
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    assert config["name"] == [folder.name]
    assert (config["backend"], config["max_batch_size"]) == (["onnxruntime"], [MAX_BATCH])
    assert config["dynamic_batching"] == [{}]
    for field, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        assert tensors(config, field) == [(value.name, TYPES[value.type], value.shape[1:]) for value in values]


def test_tensorrt_is_for_gpus_only_and_knows_the_whole_range_of_batches(tiny: Converted) -> None:
    config = parse(triton_config("some-model", tiny.graph, "fp16"))
    assert "instance_group" not in config  # Triton's own choice: the GPUs, or the CPU where there are none
    (accelerators,) = config["optimization"][0]["execution_accelerators"]
    assert list(accelerators) == ["gpu_execution_accelerator"]
    (tensorrt,) = accelerators["gpu_execution_accelerator"]
    assert tensorrt["name"] == ["tensorrt"]
    parameters = {parameter["key"][0]: parameter["value"][0] for parameter in tensorrt["parameters"]}
    assert parameters["precision_mode"] == "FP16"
    assert parameters["trt_profile_min_shapes"] == "images:1x32x32x3"
    assert parameters["trt_profile_max_shapes"] == f"images:{MAX_BATCH}x32x32x3"


def test_a_configuration_that_somebody_made_their_own_is_left(tmp_path: Path, tiny: Converted) -> None:
    said: list[str] = []
    folder = tmp_path / "tiny"
    write_triton_config(folder, tiny.graph, "fp32", said.append)
    written = (folder / CONFIG_FILE).read_text()
    assert written == triton_config("tiny", tiny.graph, "fp32")
    (folder / CONFIG_FILE).write_text(written.replace("32", "64"))
    write_triton_config(folder, tiny.graph, "fp32", said.append)
    assert (folder / CONFIG_FILE).read_text() == written
    assert said == []
    own = "max_batch_size: 1\n" + written
    (folder / CONFIG_FILE).write_text(own)
    write_triton_config(folder, tiny.graph, "fp32", said.append)
    assert (folder / CONFIG_FILE).read_text() == own
    assert "left as it is" in said[0]


def test_a_type_that_triton_has_no_name_for_is_not_passed_over(tiny: Converted) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(tiny.graph)
    graph.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    with pytest.raises(KeyError):
        triton_config("tiny", graph, "fp32")


def test_a_server_finds_its_models_beside_the_configuration() -> None:
    found = {file.name for file in find_models(MODELS)}
    assert set(SHIPPED) <= found
