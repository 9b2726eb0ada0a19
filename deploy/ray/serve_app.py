"""Serve one model by Ray Serve: `POST` an image file, and get the JSON of `POST /classify` of `serve-resnet`.

    serve run --route-prefix /classify deploy.ray.serve_app:app model=models/everyday-resnet18-int8

Images that arrive while the model is busy share the next batch; there is no timer. Serve refuses requests above
`max_ongoing_requests` and `max_queued_requests` with 503 and `Retry-After`. `deploy/ray/rayservice.yaml` runs this
application on Kubernetes. docs/ray.md says what `serve-resnet` has beyond it.
"""

import asyncio
from dataclasses import asdict, replace

from pydantic import BaseModel
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from starlette.requests import Request
from starlette.responses import JSONResponse

from resnet_service import Classification, Model, ResnetError

LARGEST_BATCH = 8
MOST_TOP_K = 5
PROBLEM = "application/problem+json"


class Arguments(BaseModel):
    """The arguments of the application, which a Serve configuration has as `args`."""

    model: str  # a model file or folder, the same on all nodes
    threads: int = 1  # as many as the CPUs of a replica
    max_image_bytes: int = 20 * 1024 * 1024


@serve.deployment(
    max_ongoing_requests=2 * LARGEST_BATCH,  # of a replica: one batch runs, one waits
    max_queued_requests=64,  # of each proxy; above it, requests are refused
    backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
)
class Classifier:
    """A replica: one loaded model."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._model = Model.load(arguments.model)

    async def __call__(self, request: Request) -> JSONResponse:
        """Answer a request whose body is an image file."""
        try:
            answer = await self._answer(request)
        except ResnetError as error:
            status = error.status or 500
            problem = {"status": status, "code": error.code, "detail": error.detail}
            return JSONResponse(problem, status, media_type=PROBLEM)
        return JSONResponse(asdict(answer))

    async def _answer(self, request: Request) -> Classification:
        if request.method != "POST":
            raise ResnetError("This path takes POST.", code="method_not_allowed", status=405)
        top_k = request.query_params.get("top_k", str(MOST_TOP_K))
        if top_k not in map(str, range(1, MOST_TOP_K + 1)):
            raise ResnetError(f"top_k must be from 1 to {MOST_TOP_K}.", code="bad_request", status=400)
        image, most_bytes = await request.body(), self._arguments.max_image_bytes
        if len(image) > most_bytes:
            raise ResnetError(f"An image may have at most {most_bytes:,} bytes.", code="too_large", status=413)
        answer: Classification | ResnetError = await self._classify(image)
        if isinstance(answer, ResnetError):
            raise answer
        return replace(answer, predictions=answer.predictions[: int(top_k)])

    @serve.batch(max_batch_size=LARGEST_BATCH, batch_wait_timeout_s=0)
    async def _classify(self, images: list[bytes]) -> list[Classification | ResnetError]:
        return await asyncio.to_thread(
            self._model.classify_many, images, top_k=MOST_TOP_K, threads=self._arguments.threads
        )


def app(arguments: Arguments) -> Application:
    """Return the application, for `serve run` and Serve configurations."""
    return Classifier.bind(arguments)
