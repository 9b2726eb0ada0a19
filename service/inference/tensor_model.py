"""A model without a card: any ONNX file, with the inputs and outputs that its graph declares.

It accepts tensors, not images. If the first axis of every input and output is open, and rows are computed independently
of each other, that axis is the batch axis, and rows of several requests share a run. Any other graph runs one request
at a time.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.batching.jobs import Deferred
from service.engine.cuda_errors import is_fatal
from service.engine.engine import EngineError, EngineOptions, check_one_runtime, check_single_file
from service.engine.onnx_runtime import Session, cannot_load, open_session
from service.engine.provider_options import CHAINS, CPU, CUDA, TENSORRT, cuda_options
from service.engine.provider_selection import choose_providers
from service.errors import BadRequest, EngineFailed, ServiceError
from service.images.preprocessing import ImageInfo
from service.inference.model_checks import SMALL_MODEL_BATCH, ModelCheckFailed, largest_batch_on_a_cpu
from service.inference.results import Classification, ModelInfo
from service.inference.row_independence import has_independent_rows
from service.inference.row_mixing import mixing_operators
from service.model_files.checksum import CORRUPTED, is_corrupted
from service.model_files.tensor_spec import DTYPES, OPEN, TensorSpec, read_spec

log = logging.getLogger(__name__)

NO_FILE = ImageInfo("TENSOR", 0, 0)  # the image properties in the result of tensors
_UNKNOWN_S = 60.0  # the assumed time of a run whose shapes depend on the request
_WARM_UP_RUNS = 3
_PLAIN_HOST = EngineOptions()

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TensorJob:
    """One row of each input, or whole tensors if the model has no batch axis, and the outputs to return."""

    inputs: Tensors  # without the first axis, if that is the batch axis
    outputs: tuple[str, ...]
    submitted_at: float  # monotonic seconds


class TensorModel:
    """A loaded graph, which has run once if its shapes are known. `answer_batch` may run in several threads at once.

    Raises EngineError if the graph has inputs or outputs that cannot be sent as numbers.
    """

    card = None

    def __init__(
        self,
        session: Session,
        info: ModelInfo,
        *,
        max_batch: int | None,
        host: EngineOptions = _PLAIN_HOST,
        mixing: frozenset[str] | None = frozenset(),
    ) -> None:
        """`mixing` names the operators of the graph that work across rows; None if they are unknown."""
        self.info = info
        self.inputs = _specs("input", session.get_inputs())
        self.outputs = _specs("output", session.get_outputs())
        self._session = session
        self._on_device_lost = host.on_device_lost
        self.is_batched = _first_axes_are_open(self.inputs + self.outputs) and self._answers_row_by_row(mixing)
        self.single_image_s = self.longest_batch_s = _UNKNOWN_S
        if not any(OPEN in spec.shape[self.is_batched :] for spec in self.inputs):
            self.single_image_s = self.longest_batch_s = min(self._seconds_of_a_run(1) for _ in range(_WARM_UP_RUNS))
            self._check_numbers()
        self.is_serialized = info.provider != CPU
        usual = SMALL_MODEL_BATCH if self.is_serialized else largest_batch_on_a_cpu(self.single_image_s)
        self.max_batch = (max_batch or usual) if self.is_batched else 1
        if self.max_batch > 1:
            self.longest_batch_s = self._seconds_of_a_run(self.max_batch)

    def set_max_batch(self, max_batch: int | None) -> None:
        """Use the largest batch that all processes have in common; None keeps the present one."""
        if max_batch is not None and self.is_batched:
            self.longest_batch_s *= max(1.0, max_batch / self.max_batch)
            self.max_batch = max_batch

    def runs_inline(self, job: TensorJob, /) -> bool:
        """Return False: the time of a run depends on the tensors."""
        return False

    def answer_batch(
        self, jobs: list[TensorJob], /, *, exclusive: bool
    ) -> list[Classification | ServiceError | Deferred[TensorJob]]:
        """Return the result of each job, in order.

        Raises EngineFailed, or BadRequest if the graph cannot run with the given shapes of its open axes.
        """
        taken_at = time.monotonic()
        names = sorted({name for job in jobs for name in job.outputs})
        started = time.monotonic()
        answers = dict(zip(names, self._run(self._feed(jobs), names), strict=True))
        inference_s = time.monotonic() - started
        return [
            Classification(
                [],
                NO_FILE,
                0.0,
                max(0.0, taken_at - job.submitted_at),
                inference_s,
                len(jobs),
                {name: answers[name][number] if self.is_batched else answers[name] for name in job.outputs},
                batch_started_at=started,
            )
            for number, job in enumerate(jobs)
        ]

    def _feed(self, jobs: list[TensorJob]) -> dict[str, NDArray[Any]]:
        if not self.is_batched:
            return {name: np.require(value, requirements=["C", "A"]) for name, value in jobs[0].inputs.items()}
        return {spec.name: np.stack([job.inputs[spec.name] for job in jobs]) for spec in self.inputs}

    def _run(self, feed: dict[str, NDArray[Any]], names: list[str]) -> list[NDArray[Any]]:
        try:
            return list(self._session.run(names, feed))
        except Exception as error:  # ONNX Runtime's exceptions have no common base class and no closed list
            if is_fatal(str(error)):
                log.critical("the GPU does not respond to this process any more", exc_info=True)
                self._on_device_lost()
            elif any(spec.is_open for spec in self.inputs):
                raise BadRequest("The model cannot run with inputs of these shapes.", code="bad_tensor") from None
            else:
                log.exception("inference failed with %s", self.info.name)
        raise EngineFailed("The model failed on this request; the server's log has the cause.")

    def _answers_row_by_row(self, mixing: frozenset[str] | None) -> bool:
        if any(spec.is_open for spec in self.inputs):
            return False
        if mixing is None or mixing:
            operators = ", ".join(sorted(mixing or ()))
            reason = "its graph cannot be parsed" if mixing is None else f"{operators} may work across rows"
        elif has_independent_rows(lambda feed: self._session.run(None, feed), self.inputs):
            return True
        else:
            reason = "random rows have different outputs in batches of different sizes"
        log.info("%s runs one request at a time: %s", self.info.served_as, reason)
        return False

    def _seconds_of_a_run(self, batch: int) -> float:
        started = time.perf_counter()
        try:
            self._session.run(None, self._filled(batch, 0))
        except Exception:
            raise ModelCheckFailed(f"the model fails on zeros in a batch of {batch}") from None
        return time.perf_counter() - started

    def _check_numbers(self) -> None:
        """Raise ModelCheckFailed if the outputs for zeros and for ones contain NaN, which suggests broken weights."""
        if not all(self._gives_no_numbers(value) for value in (0, 1)):
            return
        raise ModelCheckFailed("the model's outputs are NaN for zeros and for ones; its weights may be broken")

    def _gives_no_numbers(self, value: int) -> bool:
        try:
            answers = self._session.run(None, self._filled(1, value))
        except Exception:  # as above: the graph may not accept every value
            return False
        return any(array.dtype.kind == "f" and bool(np.isnan(array).any()) for array in answers)

    def _filled(self, batch: int, value: int) -> dict[str, NDArray[Any]]:
        return {
            spec.name: np.full([batch if axis == OPEN else axis for axis in spec.shape], value, DTYPES[spec.datatype])
            for spec in self.inputs
        }


def _first_axes_are_open(specs: tuple[TensorSpec, ...]) -> bool:
    return all(spec.shape[:1] == (OPEN,) for spec in specs)


def _specs(kind: str, nodes: list[Any]) -> tuple[TensorSpec, ...]:
    specs = [(node, read_spec(node)) for node in nodes]
    for node, spec in specs:
        if spec is None:
            raise EngineError(f"the {kind} `{node.name}` is {node.type}; only tensors of numbers can be served")
    if not specs:
        raise EngineError(f"the model has no {kind}")
    return tuple(spec for _, spec in specs if spec is not None)


def load_graph_model(
    name: str, version: str, model: bytes, *, providers: str, max_batch: int | None, host: EngineOptions = _PLAIN_HOST
) -> TensorModel:
    """Load a model file without a card. Raises EngineError or ModelCheckFailed, each with one line for an operator."""
    if is_corrupted(model):
        raise ModelCheckFailed(f"the file {CORRUPTED}")
    check_one_runtime()
    check_single_file(model)
    session = _open(model, providers, host)
    info = ModelInfo(name, version, hashlib.sha256(model).hexdigest(), session.get_providers()[0], "as in its graph")
    return TensorModel(session, info, max_batch=max_batch, host=host, mixing=mixing_operators(model))


def _open(model: bytes, providers: str, host: EngineOptions) -> Session:
    candidates = [provider for provider in choose_providers(providers) if provider != TENSORRT]
    if not candidates:
        raise EngineError("TensorRT supports only models with a card; choose --providers auto or cuda")
    if CUDA in candidates and (session := _try_cuda(model, candidates)) is not None:
        return session
    try:
        return open_session(model, threads=host.exclusive_threads or 1)
    except Exception as error:
        raise cannot_load(error) from error


def _try_cuda(model: bytes, candidates: list[str]) -> Session | None:
    """Return a session on the GPU, or None if CUDA cannot run the model and the CPU is allowed. Raises EngineError."""
    try:
        session = open_session(model, [(name, cuda_options() if name == CUDA else {}) for name in CHAINS[CUDA]])
        if session.get_providers()[0] == CUDA:
            return session
    except Exception:
        log.exception("CUDA could not load a model without a card")
    if CPU not in candidates:
        raise EngineError("the cuda provider is installed, but cannot run this model here; see the log for the cause")
    return None
