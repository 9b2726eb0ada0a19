"""POST /embed: one image in, its embedding out, as JSON or as plain float32."""

from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from service.api.endpoints.inference import InferenceService, check_encoding, read_image
from service.api.endpoints.responses import image_and_timings, send_bytes, send_json
from service.api.parsing.parameters import read_query, with_fields
from service.errors import BadRequest
from service.http.accept import choose
from service.http.request_context import RequestContext
from service.inference.embedding import OUTPUT, embedding_of

PATH = "/embed"
JSON, BINARY = "application/json", "application/octet-stream"
PARAMETERS = ("model", "normalize")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_VARY = (b"vary", b"accept")


class EmbedEndpoint:
    """Answers one request."""

    def __init__(self, serving: InferenceService) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: RequestContext = scope["exchange"]
        parameters = read_query(scope["query_string"], PARAMETERS)
        normalize = _read_normalize(parameters)
        media_type = choose(exchange.headers.get(b"accept"), (JSON, BINARY))
        check_encoding(exchange.headers)
        classifier = self._serving.registry.find(parameters.get("model"))
        read = await read_image(exchange, receive)
        if read is None:
            return  # the client left while uploading
        image, fields = read
        if fields:
            parameters = with_fields(parameters, fields, PARAMETERS)
            normalize, classifier = _read_normalize(parameters), self._serving.registry.find(parameters.get("model"))
        classification = await self._serving.classify(classifier, image, exchange, top_k=1, outputs=(OUTPUT,))
        embedding = embedding_of(classification, normalize=normalize)
        if media_type == BINARY:
            await send_bytes(exchange, embedding.tobytes(), BINARY.encode(), _VARY)
            return
        answer = {"model": classifier.info, "embedding": embedding, "normalized": normalize}
        await send_json(exchange, {**answer, **image_and_timings(classification)}, _VARY)


def _read_normalize(parameters: Mapping[str, str]) -> bool:
    flag = _FLAGS.get(parameters.get("normalize", "false").lower())
    if flag is None:
        raise BadRequest("normalize must be true or false.", code="bad_normalize")
    return flag
