"""The methods that `Client` and `AsyncClient` share: what each sends, and the result it makes of the response."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_service.attempts import Requests, Steps, document_of
from resnet_service.images import ImageInput, image_bytes
from resnet_service.results import (
    Classification,
    Embedding,
    Explanation,
    ModelInfo,
    ResnetError,
    ServedModel,
    classification_of,
    embedding_of,
    explanation_of,
    served_model_of,
)

DEFAULT_TOP_K = 5
_MOST_IMAGES, _MOST_BATCH_BYTES = 64, 32 * 1024 * 1024  # in one request, half of what a server accepts by default


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of a client. `timeout_s` limits a call with its retries; None is the limit of the client."""

    requests: Requests

    def classify(
        self,
        image: ImageInput,
        *,
        top_k: int = DEFAULT_TOP_K,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Steps[Classification]:
        """Return the best `top_k` labels of an image, or all if there are fewer. Raises ResnetError."""
        parameters = {"top_k": top_k, "model": model}
        document = yield from self._post("classify", image, parameters, timeout_s)
        return classification_of(document)

    def classify_many(
        self,
        images: Iterable[ImageInput],
        *,
        top_k: int = DEFAULT_TOP_K,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Steps[list[Classification | ResnetError]]:
        """Return for each image, in order, its best labels or its error.

        Up to 64 images share a request, and `timeout_s` limits each request. Raises ResnetError if a whole one fails.
        """
        answers: list[Classification | ResnetError] = []
        for batch in _batches_of(images):
            answers += yield from self._classify_batch(batch, {"top_k": top_k, "model": model}, timeout_s)
        return answers

    def explain(
        self,
        image: ImageInput,
        *,
        label: str | None = None,
        index: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Steps[Explanation]:
        """Return the heat maps of the five best labels, or of the label or index given. Raises ResnetError."""
        parameters = {"label": label, "index": index, "model": model}
        document = yield from self._post("explain", image, parameters, timeout_s)
        return explanation_of(document)

    def overlay(
        self,
        image: ImageInput,
        *,
        label: str | None = None,
        index: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Steps[bytes]:
        """Return the image as a PNG under the heat map of a label, by default the best. Raises ResnetError."""
        parameters, headers = {"label": label, "index": index, "model": model}, {"accept": "image/png"}
        content = image_bytes(image)
        response = yield from self.requests.send("POST", "explain", parameters, timeout_s, headers, content=content)
        return response.content

    def embed(
        self,
        image: ImageInput,
        *,
        normalize: bool = False,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> Steps[Embedding]:
        """Return the embedding of an image, with `normalize` scaled to length 1. Raises ResnetError."""
        parameters = {"normalize": str(normalize).lower(), "model": model}
        document = yield from self._post("embed", image, parameters, timeout_s)
        return embedding_of(document)

    def models(self, *, timeout_s: float | None = None) -> Steps[tuple[ServedModel, ...]]:
        """Return every version that is served, was rejected or was unloaded. Raises ResnetError."""
        response = yield from self.requests.send("GET", "models", {}, timeout_s)
        return tuple(served_model_of(entry) for entry in document_of(response)["models"])

    def _post(
        self, path: str, image: ImageInput, parameters: Mapping[str, Any], timeout_s: float | None
    ) -> Steps[dict[str, Any]]:
        content = image_bytes(image)
        return document_of((yield from self.requests.send("POST", path, parameters, timeout_s, content=content)))

    def _classify_batch(
        self, batch: Sequence[bytes | ResnetError], parameters: Mapping[str, Any], timeout_s: float | None
    ) -> Steps[list[Classification | ResnetError]]:
        files = [("files", ("image", image)) for image in batch if isinstance(image, bytes)]
        if not files:
            return [image for image in batch if isinstance(image, ResnetError)]
        response = yield from self.requests.send("POST", "classify/batch", parameters, timeout_s, files=files)
        document = document_of(response)
        results, info = iter(document["results"]), ModelInfo(**document["model"])
        return [image if isinstance(image, ResnetError) else _result_of(next(results), info) for image in batch]


def _batches_of(images: Iterable[ImageInput]) -> Iterable[list[bytes | ResnetError]]:
    """Yield images as bytes in batches that fit a request; an unreadable one is replaced by its error."""
    batch: list[bytes | ResnetError] = []
    size = 0
    for image in images:
        try:
            content: bytes | ResnetError = image_bytes(image)
        except ResnetError as error:
            content = error
        own = len(content) if isinstance(content, bytes) else 0
        if batch and (len(batch) == _MOST_IMAGES or size + own > _MOST_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(content)
        size += own
    if batch:
        yield batch


def _result_of(entry: Mapping[str, Any], model: ModelInfo) -> Classification | ResnetError:
    problem = entry.get("problem")
    if problem is None:
        return classification_of(entry, model)
    return ResnetError(problem["detail"], code=problem["code"], status=problem["status"])
