"""POST /classify: one image in, its best labels out.

A plain ASGI endpoint, because it is the hot path; `openapi.py` documents it beside the other routes.
"""

from starlette.types import Receive, Scope, Send

from service.api.endpoints.inference import InferenceService, check_encoding, read_image
from service.api.endpoints.responses import classification_as_json, send_json
from service.api.parsing.parameters import read_query, read_top_k, with_fields
from service.http.request_context import RequestContext

PATH = "/classify"
PARAMETERS = ("model", "top_k")


class ClassifyEndpoint:
    """Answers one request: reads the question, then the image, and waits for the model."""

    def __init__(self, serving: InferenceService) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: RequestContext = scope["exchange"]
        parameters = read_query(scope["query_string"], PARAMETERS)
        top_k = read_top_k(parameters)
        check_encoding(exchange.headers)
        classifier = self._serving.registry.find(parameters.get("model"))
        read = await read_image(exchange, receive)
        if read is None:
            return  # the client left while uploading
        image, fields = read
        if fields:
            parameters = with_fields(parameters, fields, PARAMETERS)
            top_k, classifier = read_top_k(parameters), self._serving.registry.find(parameters.get("model"))
        classification = await self._serving.classify(classifier, image, exchange, top_k=top_k)
        await send_json(exchange, classification_as_json(classifier.info, classification))
