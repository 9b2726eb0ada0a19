"""The content of a model file: its card, inputs, outputs, size, operators, and the precision of each layer."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from export.errors import ExportError
from export.model_file import read_file
from service.model_files.card import METADATA_KEY, BadCard, ModelCard, read_card

_WITH_WEIGHTS = ("Conv", "Gemm")
_PRECISIONS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.INT8: "int8"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output: element type and axes; an open axis has a name."""

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights."""

    name: str
    operator: str
    shape: tuple[int, ...]  # of the weights
    precision: str
    bytes: int  # of the weights


@dataclass(frozen=True, slots=True)
class Inspection:
    """The facts of a file that are known without running it."""

    path: str
    size: int  # bytes
    card: ModelCard
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: dict[str, int]  # most frequent first
    layers: tuple[Layer, ...]


def inspect_file(path: Path) -> Inspection:
    """Return the facts of a model file. Raises ExportError for another or a changed file."""
    content = read_file(path)
    model = parse(path, content)
    graph = model.graph
    operators = Counter(f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in graph.node)
    return Inspection(
        path=str(path),
        size=len(content),
        card=card_of(path, model),
        inputs=tuple(_tensor(value) for value in graph.input),
        outputs=tuple(_tensor(value) for value in graph.output),
        operators=dict(operators.most_common()),
        layers=tuple(layers_of(graph)),
    )


def parse(path: Path, content: bytes) -> onnx.ModelProto:
    """Return a model file's content as a graph. Raises ExportError."""
    try:
        return onnx.load_from_string(content)
    except Exception:  # protobuf's DecodeError, of a package without types
        raise ExportError(f"{path} is not an ONNX file; export it again") from None


def card_of(path: Path, model: onnx.ModelProto) -> ModelCard:
    """Return a model's card. Raises ExportError if it has no valid card."""
    try:
        return read_card({entry.key: entry.value for entry in model.metadata_props if entry.key == METADATA_KEY})
    except BadCard as error:
        raise ExportError(f"{path}: {error}") from None


def layers_of(graph: onnx.GraphProto) -> Iterable[Layer]:
    """Yield the layers with weights, in the order of the graph, with the type in which they are computed.

    Layers whose weights are computed by the graph, or are an input, are skipped.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in _WITH_WEIGHTS and len(node.input) > 1:
            source, quantised = node.input[1], False
            while source in producers and producers[source].input:  # through the pairs of int8
                quantised |= producers[source].op_type == "DequantizeLinear"
                source = producers[source].input[0]
            if (tensor := weights.get(source)) is None:
                continue
            precision = "int8" if quantised else _PRECISIONS.get(tensor.data_type, str(tensor.data_type))
            yield Layer(
                name=source.removesuffix("_quantized").removesuffix(".weight"),
                operator=node.op_type,
                shape=tuple(tensor.dims),
                precision=precision,
                bytes=len(tensor.raw_data),
            )


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    return Tensor(
        name=value.name,
        type=str(helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        shape=tuple(axis.dim_param or axis.dim_value for axis in kind.shape.dim),
    )


def as_json(found: Inspection) -> str:
    """Return an inspection as one JSON object."""
    document: dict[str, Any] = {
        **{name: value for name, value in asdict(found).items() if name != "card"},
        "card": found.card.model_dump(mode="json"),
    }
    return json.dumps(document)


def as_table(found: Inspection) -> str:
    """Return an inspection as text."""
    lines = [f"{found.path}  ({found.size:,} bytes)", *_facts(found.card), ""]
    for title, tensors in (("input", found.inputs), ("output", found.outputs)):
        lines += [f"{title:<8} {one.name:<14} {one.type:<8} {_shape(one.shape)}" for one in tensors]
    operators = ", ".join(f"{count} {name}" for name, count in found.operators.items())
    lines += ["", f"operators: {operators}", ""]
    width = max(len(layer.name) for layer in found.layers) if found.layers else 0
    lines += [
        f"{layer.name:<{width}}  {layer.operator:<4}  {_shape(layer.shape):<20}  {layer.precision}"
        for layer in found.layers
    ]
    return "\n".join(lines)


def _facts(card: ModelCard) -> list[str]:
    steps, made = card.preprocessing, card.provenance
    accuracy = "not measured"
    if card.accuracy:
        accuracy = (
            f"{card.accuracy.top1:.2%} top-1 on {card.accuracy.images:,} images of {card.accuracy.dataset} "
            f"({card.accuracy.provider})"
        )
    facts = {
        "network": f"{card.network}, shortcut {card.variant.shortcut or 'none'}, {len(card.labels)} classes",
        "precision": card.precision,
        "images": f"shorter side {steps.shorter_side}, crop {_shape(steps.crop)}, {steps.interpolation}",
        "accuracy": accuracy,
        "parity": f"probabilities differ from PyTorch's by at most {card.parity.largest_probability_difference:.1e}",
        "made": f"{made.created}, recipe {made.recipe or 'none'}, weights {made.checkpoint_sha256 or 'random'}",
    }
    if confidence := card.confidence:
        facts["confident"] = f"{confidence.score.replace('_', ' ')} of at least {confidence.threshold:.4g}"
    if loss := card.precision_loss:
        facts["fp32"] = f"{loss.agreement:.2%} of {loss.images:,} images keep its label ({loss.provider})"
    if how := card.quantisation:
        kept = ", ".join(how.float_layers) or "none"
        chosen = f", chosen by {how.choosing_images:,} others" if how.choosing_images else ""
        facts["ranges"] = f"{how.method} over {how.images} images{chosen}, for {how.target}; float layers: {kept}"
    return [f"{name:<10} {value}" for name, value in facts.items()]


def _shape(shape: Iterable[int | str]) -> str:
    return " x ".join(map(str, shape))
