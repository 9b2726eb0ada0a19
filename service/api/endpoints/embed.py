"""POST /embed: one image in, its embedding out, as JSON or as raw little-endian float32."""

from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from service.api.endpoints.inference import InferenceService, RequestReader, read_image
from service.api.endpoints.responses import image_and_timings, send_bytes, send_json
from service.errors import BadRequest
from service.http.request_context import RequestContext
from service.inference.embedding import OUTPUT, embedding_of

PATH = "/embed"
JSON, BINARY = "application/json", "application/octet-stream"
PARAMETERS = ("model", "normalize")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_VARY = (b"vary", b"accept")


class EmbedEndpoint:
    """Reads the parameters and the image, waits for the model, and sends the embedding."""

    def __init__(self, serving: InferenceService) -> None:
        self._serving = serving
        self._reader = RequestReader(serving.registry, PARAMETERS, _read_normalize, read_image, (JSON, BINARY))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        request = await self._reader.read(scope, receive)
        if request is None:
            return  # the client disconnected during the upload
        classifier = request.classifier
        classification = await self._serving.classify(classifier, request.content, context, top_k=1, outputs=(OUTPUT,))
        embedding = embedding_of(classification, normalize=request.options)
        if request.media_type == BINARY:
            await send_bytes(context, embedding.tobytes(), BINARY.encode(), _VARY)
            return
        answer = {"model": classifier.info, "embedding": embedding, "normalized": request.options}
        await send_json(context, {**answer, **image_and_timings(classification)}, _VARY)


def _read_normalize(parameters: Mapping[str, str]) -> bool:
    flag = _FLAGS.get(parameters.get("normalize", "false").lower())
    if flag is None:
        raise BadRequest("normalize must be true or false.", code="bad_normalize")
    return flag
