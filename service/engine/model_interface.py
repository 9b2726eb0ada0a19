"""The interface of every model file: one input of pixels, its outputs, and metadata. Checked before the first run."""

from dataclasses import dataclass

from service.engine.onnx_runtime import EngineError, Session
from service.engine.provider_options import INPUT
from service.model_files.confidence import ENERGY
from service.model_files.tensor_spec import TensorSpec, read_spec

# Name → element type and number of axes. `images` is [N, height, width, 3].
_OUTPUTS = {
    "probabilities": ("tensor(float)", 2),
    "embedding": ("tensor(float)", 2),
    "top_indices": ("tensor(int64)", 2),
    "class_maps": ("tensor(float)", 4),
}
_OPTIONAL_OUTPUTS = {ENERGY: ("tensor(float)", 2)}  # absent in older files


@dataclass(frozen=True, slots=True)
class ModelInterface:
    """The input of a valid model file in pixels, and its metadata."""

    height: int
    width: int
    metadata: dict[str, str]
    outputs: tuple[TensorSpec, ...]


def read_interface(session: Session) -> ModelInterface:
    """Return the interface of a model. Raises EngineError if this service cannot run it."""
    height, width = _read_input_size(session)
    _check_outputs(session)
    return ModelInterface(height, width, dict(session.get_modelmeta().custom_metadata_map), _read_outputs(session))


def _read_input_size(session: Session) -> tuple[int, int]:
    inputs = session.get_inputs()
    if [(node.name, node.type) for node in inputs] != [(INPUT, "tensor(uint8)")]:
        found = ", ".join(f"{node.name} {node.type}" for node in inputs)
        raise EngineError(f"the model must have one input, `images` of uint8; it has {found or 'none'}")
    shape = list(inputs[0].shape)
    if len(shape) != 4 or isinstance(shape[0], int) or not all(isinstance(n, int) for n in shape[1:]) or shape[3] != 3:
        raise EngineError(f"`images` must be [N, height, width, 3] with only N open; the model has {shape}")
    return shape[1], shape[2]


def _read_outputs(session: Session) -> tuple[TensorSpec, ...]:
    return tuple(spec for node in session.get_outputs() if (spec := read_spec(node)) is not None)


def _check_outputs(session: Session) -> None:
    found = {node.name: (node.type, len(node.shape)) for node in session.get_outputs()}
    present = {name: form for name, form in _OPTIONAL_OUTPUTS.items() if name in found}
    for name, (kind, axes) in (_OUTPUTS | present).items():
        if found.get(name) != (kind, axes):
            has = "no such output" if name not in found else "{} with {} axes".format(*found[name])
            raise EngineError(f"the model's output `{name}` must be {kind} with {axes} axes; the file has {has}")
