"""POST and PUT /predictions/{model}: classification for TorchServe's clients, and GET /ping.

The answer has the form of TorchServe's handler `image_classifier`: an object of labels and probabilities.
"""

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.api.endpoints.inference import InferenceService, check_encoding, read_body
from service.api.endpoints.responses import OPTIONS, JsonAnswer, send_bytes
from service.api.parsing.multipart import FILE_FIELDS, read_form
from service.api.parsing.parameters import read_query, read_top_k, with_fields
from service.http.readiness import Readiness
from service.http.request_context import RequestContext
from service.inference.results import Prediction

PATHS = ("/predictions/{model}", "/predictions/{model}/{version}")
METHODS = frozenset(("POST", "PUT"))  # `curl -T`, as in TorchServe's documents, sends PUT
PING_PATH = "/ping"
PARAMETERS = ("top_k",)
_FILE_FIELDS = FILE_FIELDS | {b"data", b"body"}


class PredictionsEndpoint:
    """The endpoint of TorchServe's image classification."""

    def __init__(self, serving: InferenceService) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        parameters = read_query(scope["query_string"], PARAMETERS)
        check_encoding(context.headers)
        classifier = self._serving.registry.find(_model_of(scope["path_params"]))
        body = await read_body(receive)
        if body is None:
            return  # the client disconnected during the upload
        if context.is_form:
            form = read_form(body, context.headers[b"content-type"], file_fields=_FILE_FIELDS)
            body, parameters = form.one_file(), with_fields(parameters, form.fields, PARAMETERS)
        classification = await self._serving.classify(classifier, body, context, top_k=read_top_k(parameters))
        answer = orjson.dumps(_by_label(classification.predictions), option=OPTIONS)
        await send_bytes(context, answer, b"application/json")


def ping_route(readiness: Readiness) -> Route:
    """Return the route of TorchServe's health check."""

    async def answer(_: Request) -> Response:
        readiness.check_ready()
        return JsonAnswer({"status": "Healthy"})

    return Route(PING_PATH, answer)


def _model_of(parameters: dict[str, str]) -> str:
    """Return a model as `name` or `name:version`; TorchServe writes the version 1 as 1.0."""
    version = parameters.get("version")
    return parameters["model"] if version is None else f"{parameters['model']}:{version.removesuffix('.0')}"


def _by_label(predictions: list[Prediction]) -> dict[str, float]:
    """Return the probability of each label, best first; of classes of the same name the best."""
    answer: dict[str, float] = {}
    for prediction in predictions:
        answer.setdefault(prediction.label, prediction.probability)
    return answer
