"""One loaded model: image bytes in, labels with probabilities out.

An engine thread calls `answer_batch`, which decodes each image separately, runs all of them as one batch, and selects
the best labels of each. An image that takes long to decode is deferred to another thread, so that small images do not
wait for it.
"""

import hashlib
import operator
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.batching.jobs import Deferred
from service.engine.engine import Engine, EngineOptions
from service.engine.provider_options import INPUT
from service.errors import EngineFailed, ServiceError
from service.images.header import ImageHeader, read_header
from service.images.limits import DEFAULT_LIMITS, ImageLimits
from service.images.preprocessing import ImageInfo, Pixels, PixelSteps, header_to_pixels
from service.inference.model_checks import InferenceEngine, ModelCheckFailed, WarmUp, check_golden, warm_up
from service.inference.results import Classification, ModelInfo, Prediction
from service.model_files.card import ModelCard, read_card
from service.model_files.checksum import CORRUPTED, is_corrupted
from service.model_files.confidence import ENERGY, needs_energy, scores_of
from service.model_files.tensor_spec import OPEN, TensorSpec

LARGEST_TOP_K = 1000
DECODED_BY_CLIENT = "PIXELS"  # the format of an image that arrives as pixels
_ALWAYS = ("probabilities", "top_indices")
_PLAIN_HOST = EngineOptions()
# Larger images take 10 ms and more to decode, and are deferred.
_LIGHT_PIXELS = 2_000_000  # times the scans of a progressive JPEG
_LIGHT_BYTES = 512 * 1024
# Limits of a job that may run on the event loop of an idle process.
_INLINE_BYTES = 16 * 1024
_INLINE_S = 0.002


# The dataclasses of each image are not frozen: a frozen instance takes three times as long to create.
@dataclass(slots=True)
class _Decoded:
    pixels: Pixels
    image: ImageInfo
    decode_s: float


@dataclass(slots=True)
class ImageJob:
    """One image to classify: a file, and its pixels if it is already decoded."""

    content: bytes
    top_k: int
    submitted_at: float  # monotonic seconds
    decoded: _Decoded | None = None
    outputs: tuple[str, ...] = ()  # outputs of the graph to return unchanged


def pixels_job(pixels: Pixels, outputs: tuple[str, ...]) -> ImageJob:
    """Return a job for decoded pixels, uint8 (height, width, 3) of the model's size. It returns outputs, no labels."""
    decoded = _Decoded(pixels, ImageInfo(DECODED_BY_CLIENT, pixels.shape[1], pixels.shape[0]), 0.0)
    return ImageJob(b"", 0, time.monotonic(), decoded, outputs)


class Classifier:
    """A checked and warmed-up model with a card. `answer_batch` may run in several threads at once."""

    is_batched = True

    def __init__(
        self,
        engine: InferenceEngine,
        card: ModelCard,
        info: ModelInfo,
        warm_up: WarmUp,
        outputs: tuple[TensorSpec, ...] = (),
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        steps = card.preprocessing
        self.card = card
        self.limits = limits
        self._steps = PixelSteps(steps.shorter_side, steps.crop, steps.interpolation, limits)
        self.inputs = (TensorSpec(INPUT, "UINT8", (OPEN, *steps.crop, 3)),)
        self.outputs = outputs
        self.info = info
        self.max_batch = warm_up.max_batch
        self.single_image_s = warm_up.single_image_s
        self.longest_batch_s = warm_up.longest_batch_s
        self.is_serialized = engine.largest_batch is not None  # on a GPU
        self._engine = engine
        self._needs_energy = card.confidence is not None and needs_energy(card.confidence.score)
        self._may_run_inline = not self.is_serialized and warm_up.single_image_s <= _INLINE_S

    def set_max_batch(self, max_batch: int | None) -> None:
        """Use the largest batch that all processes have in common; None keeps the present one."""
        if max_batch is not None:
            self.longest_batch_s *= max(1.0, max_batch / self.max_batch)
            self.max_batch = max_batch

    def runs_inline(self, job: ImageJob, /) -> bool:
        """Return whether the event loop may run a job: the model and the file are small."""
        return self._may_run_inline and job.decoded is None and len(job.content) <= _INLINE_BYTES

    def classify_now(self, content: bytes, *, top_k: int) -> Classification:
        """Return the best `top_k` labels of an image, computed in the calling thread without the queue.

        Raises NotAnImage, BadImage, EngineFailed.
        """
        job = ImageJob(content, top_k, time.monotonic())
        answer = self.answer_batch([job], exclusive=True)[0]
        if isinstance(answer, Deferred):
            answer = self.answer_batch([answer.prepare()], exclusive=True)[0]
        if not isinstance(answer, Classification):
            raise (answer if isinstance(answer, ServiceError) else AssertionError("a decoded image was deferred again"))
        return answer

    def answer_batch(
        self, jobs: list[ImageJob], /, *, exclusive: bool
    ) -> list[Classification | ServiceError | Deferred[ImageJob]]:
        """Return the result of each image, in order; an image that cannot be decoded has a ServiceError as result.

        `exclusive`: no process has another job, so all cores may work on this batch. Raises EngineFailed.
        """
        taken_at = time.monotonic()
        ready = [self._make_ready(job) for job in jobs]
        good = [job for job in ready if isinstance(job, ImageJob)]
        classified = iter(self._infer(good, taken_at, exclusive=exclusive) if good else ())
        return [next(classified) if isinstance(job, ImageJob) else job for job in ready]

    def _make_ready(self, job: ImageJob) -> ImageJob | ServiceError | Deferred[ImageJob]:
        if job.decoded is not None:
            return job
        started = time.monotonic()
        try:
            header = read_header(job.content)
            if _is_light(header, job.content):
                return self._decode(job, header, started)
            spent_s = time.monotonic() - started
            return Deferred(lambda: self._decode_aside(job, header, spent_s))
        except ServiceError as error:
            return error.as_answer()

    def _decode(self, job: ImageJob, header: ImageHeader, started: float) -> ImageJob:
        pixels, image = header_to_pixels(header, self._steps)
        decoded = _Decoded(pixels, image, time.monotonic() - started)
        return ImageJob(job.content, job.top_k, job.submitted_at, decoded, job.outputs)

    def _decode_aside(self, job: ImageJob, header: ImageHeader, spent_s: float) -> ImageJob:
        """Decode a deferred image, and exclude the time for that from its waiting time."""
        job = self._decode(job, header, time.monotonic() - spent_s)
        if job.decoded is not None:
            job.submitted_at += job.decoded.decode_s
        return job

    def _infer(self, jobs: list[ImageJob], taken_at: float, *, exclusive: bool) -> list[Classification | ServiceError]:
        decoded = [job.decoded for job in jobs if job.decoded is not None]
        images = np.stack([job.pixels for job in decoded]) if len(decoded) > 1 else decoded[0].pixels[None]
        names = _names_of(jobs, (*_ALWAYS, ENERGY) if self._needs_energy else _ALWAYS)
        started = time.monotonic()
        answers = dict(zip(names, self._engine.run(images, names, exclusive=exclusive), strict=True))
        inference_s = time.monotonic() - started
        probabilities, top_indices = (answers[name] for name in _ALWAYS)
        finite = np.isfinite(probabilities.sum(axis=1)).tolist()
        ranked = probabilities[np.arange(len(decoded))[:, None], top_indices]
        best = _rounded(ranked)
        return [
            Classification(
                self._named(indices[: job.top_k], values)
                if job.top_k <= len(indices)
                else self._named_beyond(probabilities[number], top_indices[number], job.top_k),
                pixels.image,
                pixels.decode_s,
                max(0.0, taken_at - job.submitted_at),
                inference_s,
                len(jobs),
                {name: answers[name][number] for name in job.outputs} if job.outputs else {},
                confident,
                started,
            )
            if is_finite
            else EngineFailed("The model's output for this image is not a number (NaN or infinity).")
            for number, (job, pixels, is_finite, indices, values, confident) in enumerate(
                zip(
                    jobs,
                    decoded,
                    finite,
                    top_indices.tolist(),
                    best,
                    self._confident(ranked[:, 0], answers.get(ENERGY)),
                    strict=True,
                )
            )
        ]

    def _confident(self, largest: NDArray[np.float32], energy: NDArray[np.float32] | None) -> list[bool] | list[None]:
        """Return for each image whether its score reaches the threshold of the card, or None without one."""
        confidence = self.card.confidence
        if confidence is None:
            return [None] * len(largest)
        reached: list[bool] = (scores_of(confidence.score, largest, energy) >= confidence.threshold).tolist()
        return reached

    def _named(self, indices: list[int], values: list[float]) -> list[Prediction]:
        labels = self.card.labels
        return [Prediction(labels[i], i, p) for i, p in zip(indices, values, strict=False)]

    def _named_beyond(self, row: NDArray[np.float32], best: NDArray[np.int64], top_k: int) -> list[Prediction]:
        """Return more labels than the graph has ranked."""
        indices = _ranked(row, best)[:top_k]
        return self._named(indices.tolist(), _rounded(row[indices]))


def _rounded(probabilities: NDArray[np.float32]) -> Any:
    """Return probabilities rounded to six digits, as lists. Rounding each by itself would dominate a label's cost."""
    return np.round(probabilities.astype(np.float64), 6).tolist()


_OUTPUTS = operator.attrgetter("outputs")


def _names_of(jobs: list[ImageJob], always: tuple[str, ...]) -> tuple[str, ...]:
    """Return the outputs to compute for a batch: those of every image, then those that some requests name."""
    if not any(map(_OUTPUTS, jobs)):
        return always
    further = {name for job in jobs for name in job.outputs}
    return (*always, *sorted(further.difference(always)))


def _is_light(header: ImageHeader, content: bytes) -> bool:
    return header.width * header.height * max(1, header.scans) <= _LIGHT_PIXELS and len(content) <= _LIGHT_BYTES


def _ranked(row: NDArray[np.float32], best: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of all classes, best first. Probabilities can tie, so the graph's ranking by logits leads."""
    order = np.argsort(-row, kind="stable")
    return np.concatenate([best, order[~np.isin(order, best)]])


def _check_energy(engine: Engine) -> None:
    if ENERGY not in {spec.name for spec in engine.outputs}:
        raise ModelCheckFailed(
            f"the card's confidence score needs the output `{ENERGY}`, which the graph lacks; export the model again"
        )


def load_classifier(
    name: str,
    version: str,
    model: bytes,
    *,
    providers: str,
    max_batch: int | None,
    host: EngineOptions = _PLAIN_HOST,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Classifier:
    """Verify a model file's checksum, load it, check its golden example, and warm it up.

    Raises EngineError, BadCard or ModelCheckFailed, each with one line for an operator.
    """
    if is_corrupted(model):
        raise ModelCheckFailed(f"the file {CORRUPTED}")
    engine = Engine(model, providers=providers, host=host)
    card = read_card(engine.metadata)
    if card.confidence is not None and needs_energy(card.confidence.score):
        _check_energy(engine)
    check_golden(engine, card, engine.precision)
    precision = engine.precision or card.precision
    info = ModelInfo(name, version, hashlib.sha256(model).hexdigest(), engine.provider, precision)
    return Classifier(engine, card, info, warm_up(engine, max_batch), engine.outputs, limits)
