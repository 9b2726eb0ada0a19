"""Conversion of a request's tensors to rows, which are batched with those of other requests, and of results back."""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.parsing.base64_text import from_base64
from service.api.v2.json_tensors import bad_tensor
from service.api.v2.tensors import InferRequest, RequestedOutput, Tensor, read_request
from service.errors import BadImage, NotAnImage, image_too_large
from service.images.header import check_format, format_of
from service.inference.classifier import Classifier, ImageJob, pixels_job
from service.inference.registry import ServedModel
from service.inference.results import Classification
from service.inference.tensor_model import TensorJob, TensorModel
from service.model_files.confidence import ENERGY
from service.model_files.tensor_spec import DTYPES, OPEN

MOST_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a request: `job` returns the job of a row from its number and the names of the outputs."""

    count: int
    job: Callable[[int, tuple[str, ...]], ImageJob | TensorJob]


@dataclass(frozen=True, slots=True)
class InferCall:
    """The rows of a request, and the outputs that its client requests."""

    rows: Rows
    outputs: tuple[RequestedOutput, ...]
    id: str | None = None
    timeout_s: float = math.inf

    def job(self, number: int) -> ImageJob | TensorJob:
        """Return the job of one row. Raises NotAnImage."""
        return self.rows.job(number, tuple(output.name for output in self.outputs))

    def located(self, error: NotAnImage | BadImage, number: int) -> NotAnImage | BadImage:
        """Return the failure of one row; if there are several images, its message names the image."""
        if self.rows.count == 1:
            return error
        place = f"Image {number + 1} of {self.rows.count}"
        return type(error)(f"{place}: {error.message}", code=error.code)


def read_call(model: ServedModel, body: bytes, json_bytes: int | None, *, max_image_bytes: int) -> InferCall:
    """Read a request whose JSON is the first `json_bytes` bytes of its body; None: all of it; 0: one raw tensor.

    Raises BadRequest, TooLarge.
    """
    if json_bytes == 0:
        rows = _rows_of_raw(model, body, max_image_bytes)
        return InferCall(rows, tuple(RequestedOutput(name, is_binary=True) for name in _usual_outputs(model)))
    request = read_request(body, json_bytes, functools.partial(_check_input, model))
    rows = _rows_of(model, request.inputs, max_image_bytes)
    return InferCall(rows, _requested(model, request), request.id, _timeout_s(request.parameters))


def _check_input(model: ServedModel, name: str, datatype: str, shape: tuple[int, ...]) -> None:
    """Raise BadRequest for a type or shape that the input does not accept. Names are checked elsewhere."""
    spec = next((spec for spec in model.inputs if spec.name == name), None)
    if spec is None:
        return
    takes = f"Input `{name}` takes {spec.datatype} {list(spec.shape)}"
    fits = datatype == spec.datatype and spec.fits(shape)
    if isinstance(model, Classifier):
        takes += ", or BYTES [-1] with JPEG, PNG or WebP files"
        fits = fits or (datatype == "BYTES" and (len(shape) == 1 or shape[1:] == (1,)))
    if not fits:
        raise bad_tensor(f"{takes}; it was given {datatype} {list(shape)}.")


def _rows_of_raw(model: ServedModel, body: bytes, max_image_bytes: int) -> Rows:
    if isinstance(model, Classifier) and format_of(body) is not None:
        return _image_rows([_checked_image(body, max_image_bytes)])
    if len(model.inputs) != 1 or OPEN in model.inputs[0].shape[1:]:
        raise bad_tensor(
            "This model needs a request with JSON: raw bytes alone do not contain the names and shapes of its inputs."
        )
    spec = model.inputs[0]
    shape = tuple(1 if axis == OPEN else axis for axis in spec.shape)
    dtype = DTYPES[spec.datatype]
    size = math.prod(shape) * dtype.itemsize
    if len(body) != size:
        image = "a JPEG, PNG or WebP file, or " if isinstance(model, Classifier) else ""
        raise bad_tensor(
            f"With Inference-Header-Content-Length 0 the body must be {image}the {size} bytes "
            f"of `{spec.name}`, {spec.datatype} {list(shape)}; it has {len(body)}."
        )
    return _rows_of(model, (Tensor(spec.name, spec.datatype, shape, np.frombuffer(body, dtype).reshape(shape)),), 0)


def _rows_of(model: ServedModel, inputs: Sequence[Tensor], max_image_bytes: int) -> Rows:
    given, requested = [tensor.name for tensor in inputs], [spec.name for spec in model.inputs]
    if sorted(given) != sorted(requested):
        raise bad_tensor(f"The model takes the inputs {_list(requested)}, but was given {_list(given)}.")
    if isinstance(model, Classifier):
        return _rows_of_images(inputs[0].data, max_image_bytes)
    return _rows_of_tensors(model, {tensor.name: tensor for tensor in inputs})


def _rows_of_images(pixels: NDArray[Any] | list[bytes], max_image_bytes: int) -> Rows:
    _check_count(len(pixels))
    if isinstance(pixels, list):
        return _image_rows([_checked_image(_unwrapped(file), max_image_bytes) for file in pixels])
    return Rows(len(pixels), lambda number, names: pixels_job(pixels[number], names))


def _image_rows(files: Sequence[bytes]) -> Rows:
    def job(number: int, names: tuple[str, ...]) -> ImageJob:
        check_format(files[number], is_sent=True)
        return ImageJob(files[number], 0, time.monotonic(), outputs=names)

    return Rows(len(files), job)


def _check_count(rows: int) -> None:
    if not 1 <= rows <= MOST_ROWS:
        raise bad_tensor(f"A request must have 1 to {MOST_ROWS:,} rows; it has {rows:,}. Send several requests.")


def _unwrapped(content: bytes) -> bytes:
    """Return the bytes of an image file, which JSON contains in base64."""
    if format_of(content) is not None:
        return content
    try:
        return from_base64(content)
    except ValueError:
        return content


def _checked_image(content: bytes, max_image_bytes: int) -> bytes:
    if not content:
        raise bad_tensor("An image is empty.")
    if len(content) > max_image_bytes:
        raise image_too_large(max_image_bytes)
    return content


def _rows_of_tensors(model: TensorModel, tensors: Mapping[str, Tensor]) -> Rows:
    data = {name: np.asarray(tensor.data) for name, tensor in tensors.items()}
    if not model.is_batched:
        return Rows(1, lambda _, names: TensorJob(data, names, time.monotonic()))
    counts = {len(array) for array in data.values()}
    if len(counts) != 1:
        raise bad_tensor("All inputs must have the same length along their first axis, the batch.")
    _check_count(min(counts))

    def job(number: int, names: tuple[str, ...]) -> TensorJob:
        return TensorJob({name: array[number] for name, array in data.items()}, names, time.monotonic())

    return Rows(min(counts), job)


def _requested(model: ServedModel, request: InferRequest) -> tuple[RequestedOutput, ...]:
    names = [spec.name for spec in model.outputs]
    if request.outputs is None:
        return tuple(RequestedOutput(name, request.wants_binary) for name in _usual_outputs(model))
    unknown = [output.name for output in request.outputs if output.name not in names]
    if unknown:
        raise bad_tensor(f"The model has no output {_list(unknown)}; it has {_list(names)}.")
    return request.outputs


def _usual_outputs(model: ServedModel) -> list[str]:
    """Return the outputs of a request that names none: all, except the energy of a model with a card."""
    return [spec.name for spec in model.outputs if model.card is None or spec.name != ENERGY]


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:16]) or "none"


def _timeout_s(parameters: Mapping[str, Any]) -> float:
    timeout = parameters.get("timeout", 0)
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0:
        raise bad_tensor("`timeout` must be a whole number of microseconds, 0 for none.")
    return timeout / 1e6 if timeout else math.inf


def joined(model: ServedModel, call: InferCall, answers: Sequence[Classification]) -> list[tuple[Tensor, bool]]:
    """Return the requested outputs of all rows, each with whether to send it as raw bytes."""
    joined = []
    for output in call.outputs:
        rows = [answer.outputs[output.name] for answer in answers]
        array = np.stack(rows) if model.is_batched else rows[0]
        joined.append((_tensor(model, output, array), output.is_binary))
    return joined


def _tensor(model: ServedModel, output: RequestedOutput, array: NDArray[Any]) -> Tensor:
    if output.best_classes is None:
        datatype = next(spec.datatype for spec in model.outputs if spec.name == output.name)
        return Tensor(output.name, datatype, array.shape, array)
    labels = model.card.labels if model.card is not None and output.name == "probabilities" else None
    rows = array.reshape(len(array), -1) if model.is_batched else array.reshape(1, -1)
    texts = [text for row in rows for text in _best(row, output.best_classes, labels)]
    shape = (len(array), len(texts) // len(array)) if model.is_batched else (len(texts),)
    return Tensor(output.name, "BYTES", shape, texts)


def _best(row: NDArray[Any], count: int, labels: Sequence[str] | None) -> list[bytes]:
    """Return `value:index` or `value:index:label` of the largest values, largest first."""
    indices = np.argsort(-row.astype(np.float64), kind="stable")[:count].tolist()
    values = row[indices].tolist()
    return [
        ":".join((_written(value), str(index), *((labels[index],) if labels is not None else ()))).encode()
        for index, value in zip(indices, values, strict=True)
    ]


def _written(value: float | bool) -> str:
    """Return a number in the format of C++'s std::to_string."""
    return f"{value:.6f}" if isinstance(value, float) else str(int(value))
