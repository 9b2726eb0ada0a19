"""A model so small that its answers are known: it names the corner of the colour cube nearest to the mean colour.

It keeps the whole contract of a model file: four outputs, a card, a golden example.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.engine.engine import Engine
from service.model_files.card import METADATA_KEY, golden_input
from service.model_files.checksum import append_checksum

SIDE = 8
LABELS = ("black", "red", "green", "blue", "yellow", "magenta", "cyan", "white")
COLOURS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
SHARPNESS = 4.0
TOP = 5


def tiny_model(*, card: dict[str, Any] | None = None, poison: bool = False, energy: bool = False) -> bytes:
    """Return the file. `card` replaces fields of the card; a poisoned model answers NaN for a white image.

    `energy`: the graph has that output, which older files lack.
    """
    model = _graph(poison=poison, energy=energy)
    probabilities = Engine(model.SerializeToString()).run(golden_input(SIDE, SIDE))[0][0]
    document = {**_card(probabilities), **(card or {})}
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(document)
    return append_checksum(model.SerializeToString())


def write_tiny_model(folder: Path, name: str = "tiny", version: str = "1", content: bytes | None = None) -> Path:
    """Put the model where a registry looks for it, and return its path."""
    path = folder / name / version / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_model() if content is None else content)
    return path


def _graph(*, poison: bool, energy: bool) -> onnx.ModelProto:
    graph = helper.make_graph(
        [*_nodes("sane" if poison else "probabilities"), *(_poison("sane") if poison else ()), *_energy()[:energy]],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(LABELS)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("top_indices", TensorProto.INT64, ["N", TOP]),
            helper.make_tensor_value_info("class_maps", TensorProto.FLOAT, ["N", TOP, SIDE, SIDE]),
            *[helper.make_tensor_value_info("energy", TensorProto.FLOAT, ["N", 1])][:energy],
        ],
        [numpy_helper.from_array(value, name) for name, value in _constants().items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _constants() -> dict[str, NDArray[Any]]:
    colours = np.array(COLOURS, dtype=np.float32)
    weights = 2 * SHARPNESS * colours  # the nearest corner p to a colour x has the largest 2 x.p - p.p
    return {
        "scale": np.array(255, dtype=np.float32),
        "weights": weights,
        "weights_t": np.ascontiguousarray(weights.T),
        "bias": -SHARPNESS * (colours * colours).sum(axis=1),
        "top": np.array([TOP], dtype=np.int64),
        "pixels_shape": np.array([0, 3, SIDE * SIDE], dtype=np.int64),
        "maps_shape": np.array([0, TOP, SIDE, SIDE], dtype=np.int64),
        "colour_axis": np.array([1], dtype=np.int64),
        "almost_white": np.array(2.99, dtype=np.float32),
    }


def _nodes(probabilities: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["images"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["as_float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["features"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["features"], ["embedding"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["embedding", "weights_t"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [probabilities], axis=-1),
        helper.make_node("TopK", ["logits", "top"], ["top_values", "top_indices"], axis=-1),
        helper.make_node("Gather", ["weights", "top_indices"], ["chosen"], axis=0),
        helper.make_node("Reshape", ["features", "pixels_shape"], ["flat"]),
        helper.make_node("MatMul", ["chosen", "flat"], ["flat_maps"]),
        helper.make_node("Reshape", ["flat_maps", "maps_shape"], ["class_maps"]),
    ]


def _energy() -> list[onnx.NodeProto]:
    return [helper.make_node("ReduceLogSumExp", ["logits"], ["energy"], axes=[1], keepdims=1)]


def _poison(sane: str) -> list[onnx.NodeProto]:
    """Add sqrt(2.99 - brightness) minus itself, which is not a number for white alone, else 0."""
    return [
        helper.make_node("ReduceSum", ["embedding", "colour_axis"], ["brightness"], keepdims=1),
        helper.make_node("Sub", ["almost_white", "brightness"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["root"]),
        helper.make_node("Sub", ["root", "root"], ["nothing"]),
        helper.make_node("Add", [sane, "nothing"], ["probabilities"]),
    ]


def _card(probabilities: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "network": "tiny",
        "depth": 1,
        "variant": {"shortcut": None, "stride_in": None},
        "labels": LABELS,
        "preprocessing": {
            "shorter_side": SIDE,
            "crop": [SIDE, SIDE],
            "interpolation": "bilinear",
            "antialias": True,
            "mean": [0.0, 0.0, 0.0],
            "standard_deviation": [1.0, 1.0, 1.0],
        },
        "dataset": None,
        "precision": "fp32",
        "accuracy": None,
        "calibration": None,
        "parity": {
            "largest_probability_difference": 0.0,
            "images": 1,
            "agreeing_images": 1,
            "batch_sizes": [1],
        },
        "provenance": {
            "checkpoint_sha256": None,
            "recipe": None,
            "seed": None,
            "git_commit": None,
            "created": "2026-01-01T00:00:00Z",
            "versions": {},
        },
        "golden": {"probabilities": probabilities.tolist()},
    }
