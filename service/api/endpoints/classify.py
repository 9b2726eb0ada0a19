"""POST /classify: one image in, its best labels out.

A plain ASGI endpoint, because it is the hot path; `openapi/document.py` has its documentation.
"""

from starlette.types import Receive, Scope, Send

from service.api.endpoints.inference import InferenceService, RequestReader, read_image
from service.api.endpoints.responses import classification_as_json, send_json
from service.api.parsing.parameters import read_top_k
from service.http.request_context import RequestContext

PATH = "/classify"
PARAMETERS = ("model", "top_k")


class ClassifyEndpoint:
    """Reads the parameters and the image, waits for the model, and sends the labels as JSON."""

    def __init__(self, serving: InferenceService) -> None:
        self._serving = serving
        self._reader = RequestReader(serving.registry, PARAMETERS, read_top_k, read_image)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        request = await self._reader.read(scope, receive)
        if request is None:
            return  # the client disconnected during the upload
        classifier = request.classifier
        classification = await self._serving.classify(classifier, request.content, context, top_k=request.options)
        await send_json(context, classification_as_json(classifier.info, classification))
