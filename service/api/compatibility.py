"""The routes for clients of other services: Hugging Face, TorchServe and OpenAI."""

from starlette.routing import Route

from service.api import huggingface, openai, torchserve
from service.api.endpoints.inference import InferenceService
from service.errors import image_too_large, request_too_large
from service.http.readiness import Readiness
from service.http.upload_limits import BodyLimit

_JSON_BYTES = 64 * 1024  # of a JSON body in addition to its base64


def compatibility_routes(serving: InferenceService, readiness: Readiness, *, max_waiting: int) -> list[Route]:
    """Return the routes for clients of other services."""
    predictions = torchserve.PredictionsEndpoint(serving)
    embeddings = openai.EmbeddingsEndpoint(serving, max_waiting=max_waiting)
    return [
        Route(huggingface.PATH, huggingface.HuggingFaceEndpoint(serving), methods=["POST"]),
        *(Route(path, predictions, methods=[*torchserve.METHODS]) for path in torchserve.PATHS),
        torchserve.ping_route(readiness),
        Route(openai.EMBEDDINGS_PATH, embeddings, methods=["POST"]),
        *openai.model_routes(serving.registry, readiness),
    ]


def compatibility_body_limits(max_image_bytes: int, max_request_bytes: int) -> dict[str, BodyLimit]:
    """Return the body limits by path; the arguments are in bytes."""
    json_bytes = -(-max_image_bytes // 3) * 4 + _JSON_BYTES
    return {
        huggingface.PATH: BodyLimit(json_bytes, refusal=lambda _: image_too_large(max_image_bytes)),
        **dict.fromkeys(torchserve.PATHS, BodyLimit(max_image_bytes, methods=torchserve.METHODS)),
        openai.EMBEDDINGS_PATH: BodyLimit(max_request_bytes, 0, request_too_large),
    }
