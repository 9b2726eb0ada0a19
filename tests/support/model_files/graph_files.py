"""Small ONNX files without a card, as other programs make them."""

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper


def graph_file(
    kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("N", 3), *, operator: str = "Neg", domain: str = ""
) -> bytes:
    """Return a model with one input `x` and two outputs: `y`, minus the input, and `z`, the same once more."""
    nodes = [helper.make_node(operator, ["x"], ["y"], domain=domain), helper.make_node("Identity", ["y"], ["z"])]
    tensors = {name: helper.make_tensor_value_info(name, kind, list(shape)) for name in "xyz"}
    graph = helper.make_graph(nodes, "minus", [tensors["x"]], [tensors["y"], tensors["z"]])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return model.SerializeToString()


def write_graph_file(folder: Path, name: str, content: bytes) -> None:
    """Put a model where a registry looks for it."""
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
