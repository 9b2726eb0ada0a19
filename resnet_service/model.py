"""A model in this process: the same preprocessing, engine and answers as the server, without HTTP and queue."""

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from resnet_service.images import ImageInput, image_bytes
from resnet_service.results import (
    Classification,
    Embedding,
    Explanation,
    HeatMap,
    ImageInfo,
    ModelInfo,
    Prediction,
    ResnetError,
)
from service.batching.jobs import Deferred
from service.errors import BadRequest, ServiceError
from service.inference import class_activation, embedding, results
from service.inference import classifier as engine
from service.inference.heat_map import map_as_png
from service.inference.registry import load
from service.model_files.repository import ModelFile, ModelRepositoryError
from service.system.cores import available_cores
from service.telemetry.durations import milliseconds

DEFAULT_TOP_K = 5
_FILE = "model.onnx"
_BATCH = 8  # images that a thread classifies together

Providers = Literal["auto", "tensorrt", "cuda", "cpu"]


class Model:
    """One loaded model. Its methods may be called from several threads."""

    def __init__(self, classifier: engine.Classifier) -> None:
        self._classifier = classifier

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, providers: Providers = "auto") -> "Model":
        """Return the model in a file, in the folder of one version, or in a model's folder: its highest version.

        Raises ResnetError (`no_model`) if there is none, or if it has no model card or fails its checks.
        """
        file = find_model(Path(path))
        try:
            loaded = load(file, providers=providers, max_batch=_BATCH)
        except ModelRepositoryError as error:
            raise ResnetError(str(error), code="no_model") from None
        if not isinstance(loaded, engine.Classifier):
            raise ResnetError(f"{file.path} has no model card; export it with export-onnx", code="no_model")
        return cls(loaded)

    @property
    def info(self) -> ModelInfo:
        """Name, version, checksum, provider and precision."""
        return ModelInfo(**asdict(self._classifier.info))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, by index."""
        return self._classifier.card.labels

    def classify(self, image: ImageInput, *, top_k: int = DEFAULT_TOP_K) -> Classification:
        """Return the best `top_k` labels of an image, or all if there are fewer. Raises ResnetError."""
        return self._classification(self._answer(image, top_k, ()))

    def classify_many(
        self, images: Iterable[ImageInput], *, top_k: int = DEFAULT_TOP_K, threads: int | None = None
    ) -> list[Classification | ResnetError]:
        """Return for each image, in order, its best labels, or the error that it has. `threads`: None is all cores."""
        _check_top_k(top_k)
        with ThreadPoolExecutor(threads or available_cores()) as pool:
            batches = pool.map(lambda batch: self._classify_batch(batch, top_k), _batches_of(images))
            return [answer for batch in batches for answer in batch]

    def explain(self, image: ImageInput, *, label: str | None = None, index: int | None = None) -> Explanation:
        """Return the heat maps of the five best labels, or that of one of them. Raises ResnetError."""
        classification = self._answer(image, DEFAULT_TOP_K, (class_activation.OUTPUT,))
        with _translated():
            found = class_activation.chosen(class_activation.explanations(classification), label=label, index=index)
        left, top, right, bottom = class_activation.crop_seen(self._classifier, classification.image)
        return Explanation(
            self.info,
            tuple(_heat_map(explanation) for explanation in found),
            classification.confident,
            (round(left, 2), round(top, 2), round(right, 2), round(bottom, 2)),
            _image_of(classification),
            _timings_of(classification),
        )

    def overlay(self, image: ImageInput, *, label: str | None = None, index: int | None = None) -> bytes:
        """Return the image as a PNG with the heat map of a label over it, by default the best. Raises ResnetError."""
        content = image_bytes(image)
        classification = self._answer(content, DEFAULT_TOP_K, (class_activation.OUTPUT,))
        with _translated():
            found = class_activation.chosen(class_activation.explanations(classification), label=label, index=index)
            return class_activation.overlay(found[0], content, self._classifier, classification.image)

    def embed(self, image: ImageInput, *, normalize: bool = False) -> Embedding:
        """Return the embedding of an image, with `normalize` scaled to length 1. Raises ResnetError."""
        classification = self._answer(image, 1, (embedding.OUTPUT,))
        values = embedding.embedding_of(classification, normalize=normalize)
        return Embedding(self.info, values, normalize, _image_of(classification), _timings_of(classification))

    def _answer(self, image: ImageInput, top_k: int, outputs: tuple[str, ...]) -> results.Classification:
        _check_top_k(top_k)
        with _translated():
            answer = self._run([self._job(image, top_k, outputs)], exclusive=True)[0]
            if isinstance(answer, ServiceError):
                raise answer
            return answer

    def _classify_batch(self, images: list[ImageInput], top_k: int) -> list[Classification | ResnetError]:
        answers: list[Classification | ResnetError | None] = []
        jobs = []
        for image in images:
            try:
                jobs.append(self._job(image, top_k, ()))
                answers.append(None)
            except (ResnetError, ServiceError) as error:
                answers.append(error if isinstance(error, ResnetError) else _error_of(error))
        with _translated():
            classified = iter(self._run(jobs, exclusive=False) if jobs else ())
        return [self._result(next(classified)) if answer is None else answer for answer in answers]

    def _run(self, jobs: list[engine.ImageJob], *, exclusive: bool) -> list[results.Classification | ServiceError]:
        """Answer each image; those that take long to decode are decoded first and answered after the others."""
        answers = self._classifier.answer_batch(jobs, exclusive=exclusive)
        return [self._finished(answer) if isinstance(answer, Deferred) else answer for answer in answers]

    def _finished(self, deferred: "Deferred[engine.ImageJob]") -> results.Classification | ServiceError:
        try:
            answer = self._classifier.answer_batch([deferred.prepare()], exclusive=True)[0]
        except ServiceError as error:
            return error
        assert not isinstance(answer, Deferred)  # noqa: S101 - a prepared image is never deferred again
        return answer

    def _job(self, image: ImageInput, top_k: int, outputs: tuple[str, ...]) -> engine.ImageJob:
        content = image_bytes(image)
        if not content:
            raise BadRequest("There is no image: the file is empty.", code="no_file")
        return engine.ImageJob(content, top_k, time.monotonic(), outputs=outputs)

    def _result(self, answer: results.Classification | ServiceError) -> Classification | ResnetError:
        return _error_of(answer) if isinstance(answer, ServiceError) else self._classification(answer)

    def _classification(self, answer: results.Classification) -> Classification:
        return Classification(
            self.info,
            tuple(Prediction(best.label, best.index, best.probability) for best in answer.predictions),
            answer.confident,
            _image_of(answer),
            _timings_of(answer),
        )


def find_model(path: Path) -> ModelFile:
    """Return the model file that a path means. Raises ResnetError (`no_model`)."""
    if path.is_file():
        return _named(path)
    if (path / _FILE).is_file():
        return _named(path / _FILE)
    versions = [int(entry.name) for entry in path.glob("[1-9]*") if entry.name.isdigit() and (entry / _FILE).is_file()]
    if not versions:
        raise ResnetError(
            f"there is no model at {path}; name a file, or a folder with {_FILE} or <version>/{_FILE}", code="no_model"
        )
    return _named(path / str(max(versions)) / _FILE)


def _named(path: Path) -> ModelFile:
    """Return a file with the name and version of its folders, as far as they have them."""
    folder = path.resolve().parent
    if path.name != _FILE:
        return ModelFile(path.stem, "1", path)
    if folder.name.isdigit():
        return ModelFile(folder.parent.name, folder.name, path)
    return ModelFile(folder.name, "1", path)


def _batches_of(images: Iterable[ImageInput]) -> Iterator[list[ImageInput]]:
    rest = iter(images)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _check_top_k(top_k: int) -> None:
    if not 1 <= top_k <= engine.LARGEST_TOP_K:
        raise ValueError(f"top_k must be from 1 to {engine.LARGEST_TOP_K}, not {top_k}")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        raise _error_of(error) from None


def _error_of(error: ServiceError) -> ResnetError:
    return ResnetError(error.message, code=error.code, status=error.status)


def _image_of(answer: results.Classification) -> ImageInfo:
    is_truncated = getattr(answer.image, "truncated", False)  # only images that are have the field
    return ImageInfo(answer.image.format, answer.image.width, answer.image.height, is_truncated)


def _timings_of(answer: results.Classification) -> dict[str, float]:
    steps = (("decode", answer.decode_s), ("queue", answer.queue_s), ("inference", answer.inference_s))
    return {name: milliseconds(seconds) for name, seconds in steps}


def _heat_map(explanation: class_activation.Explanation) -> HeatMap:
    best = explanation.prediction
    heat = np.ascontiguousarray(explanation.heat)
    return HeatMap(best.label, best.index, best.probability, heat, map_as_png(heat))
