"""POST /v1/embeddings and GET /v1/models: embeddings of images for the clients of OpenAI's API.

`input` is an image as a data URL, or a list of up to 64 of them. Embeddings have length 1, like those of OpenAI.
"""

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.api.endpoints.batch import MOST_IMAGES
from service.api.endpoints.fan_out import gather_all, window_size
from service.api.endpoints.inference import InferenceService, check_encoding, read_body
from service.api.endpoints.responses import JsonAnswer, send_json
from service.api.parsing.json_images import JsonParser, decoded_image, read_object
from service.api.parsing.long_values import LongArray
from service.errors import BadRequest
from service.http.readiness import Readiness
from service.http.request_context import RequestContext
from service.inference.classifier import Classifier
from service.inference.embedding import OUTPUT, embedding_of
from service.inference.registry import Registry

EMBEDDINGS_PATH, MODELS_PATH = "/v1/embeddings", "/v1/models"
MODEL_PATH = "/v1/models/{model}"
_EXPECTED = '{"model": "a name of GET /v1/models", "input": "data:image/jpeg;base64,…"}'


@dataclass(frozen=True, slots=True)
class _EmbeddingsRequest:
    images: list[bytes]
    model: str | None
    is_base64: bool
    dimensions: int | None


class EmbeddingsEndpoint:
    """The endpoint of OpenAI's embeddings."""

    def __init__(self, serving: InferenceService, *, max_waiting: int) -> None:
        self._serving = serving
        self._max_waiting = max_waiting
        self._parser = JsonParser()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        check_encoding(context.headers)
        body = await read_body(receive)
        if body is None:
            return  # the client disconnected during the upload
        request = await self._parser.parse(body, context, _read_request)
        del body
        classifier = self._serving.registry.find(request.model)
        _check_dimensions(request.dimensions, classifier)
        embeddings = await self._embed(request, classifier, context)
        data = [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index, embedding in enumerate(embeddings)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}  # clients expect this field; images have no tokens
        await send_json(context, {"object": "list", "data": data, "model": classifier.info.name, "usage": usage})

    async def _embed(self, request: _EmbeddingsRequest, classifier: Classifier, context: RequestContext) -> list[Any]:
        async def embed(number: int) -> Any:
            image = request.images[number]
            classification = await self._serving.classify(classifier, image, context, top_k=1, outputs=(OUTPUT,))
            embedding = embedding_of(classification, normalize=True)
            return base64.b64encode(embedding.tobytes()).decode() if request.is_base64 else embedding

        window = window_size(classifier.max_batch, self._serving.batcher.thread_count, self._max_waiting)
        return await gather_all(len(request.images), embed, at_once=window)


def model_routes(registry: Registry, readiness: Readiness) -> list[Route]:
    """Return the routes that list the models with embeddings."""

    async def models(_: Request) -> Response:
        readiness.check_started()
        found = {model.info.name: model for model in registry if isinstance(model, Classifier)}
        return JsonAnswer({"object": "list", "data": [_described(model) for model in found.values()]})

    async def model(request: Request) -> Response:
        readiness.check_started()
        return JsonAnswer(_described(registry.find(request.path_params["model"])))

    return [Route(MODELS_PATH, models), Route(MODEL_PATH, model)]


def _described(model: Classifier) -> dict[str, Any]:
    return {"id": model.info.name, "object": "model", "created": _created(model), "owned_by": "resnet-service"}


def _created(model: Classifier) -> int:
    """Return the export time of a model in seconds since 1970; 0 if its card has no valid time."""
    try:
        return max(0, int(datetime.fromisoformat(model.card.provenance.created).timestamp()))
    except ValueError:
        return 0


def _check_dimensions(dimensions: int | None, classifier: Classifier) -> None:
    """Raise BadRequest if the requested number of dimensions is not that of the embedding."""
    size = next((output.shape[-1] for output in classifier.outputs if output.name == OUTPUT), None)
    if dimensions is not None and dimensions != size:
        raise BadRequest(
            f"`dimensions` is {dimensions}, but this model's embeddings have {size}; omit it.", code="bad_json"
        )


def _read_request(body: bytes) -> _EmbeddingsRequest:
    document = read_object(body, _EXPECTED)
    model, encoding = document.get("model"), document.get("encoding_format")
    if model is not None and not isinstance(model, str):
        raise BadRequest(f"`model` must be the name of a model; send {_EXPECTED}.", code="bad_json")
    if encoding not in (None, "float", "base64"):
        raise BadRequest("`encoding_format` must be float or base64.", code="bad_json")
    dimensions = document.get("dimensions")
    if dimensions is not None and (isinstance(dimensions, bool) or not isinstance(dimensions, int)):
        raise BadRequest("`dimensions` must be a whole number.", code="bad_json")
    return _EmbeddingsRequest(_images_of(document.get("input")), model, encoding == "base64", dimensions)


def _images_of(given: Any) -> list[bytes]:
    values = given if isinstance(given, list) else [given]
    if not values or isinstance(given, LongArray) or isinstance(values[0], int | float):
        raise BadRequest(f"`input` has no image, and only images are supported; send {_EXPECTED}.", code="bad_json")
    if len(values) > MOST_IMAGES:
        raise BadRequest(
            f"A request may have at most {MOST_IMAGES} images; send several requests.", code="too_many_images"
        )
    return [decoded_image(value, "input") for value in values]
