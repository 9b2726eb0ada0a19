"""The routes under /v2 on the public port."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.endpoints.inference import InferenceService
from service.api.endpoints.responses import JsonAnswer
from service.api.parsing.short_json import NotJson, read_short_json
from service.api.v2.infer import InferEndpoint
from service.api.v2.metadata import model_config, model_metadata, repository_index, server_metadata
from service.api.v2.model_control import change_routes
from service.api.v2.statistics import model_statistics
from service.errors import BadRequest, NotFound, request_too_large
from service.http.readiness import Readiness
from service.http.upload_limits import BodyLimit
from service.inference.registry import ServedModel

Answer = Callable[[Request], Awaitable[Response]]

INFER_PATHS = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
_INDEX_BODY = BodyLimit(64 * 1024, 0, request_too_large)
# Routes of other servers of the protocol. They are not documented here, and only return an explanation.
NOT_SUPPORTED = (
    "/v2/trace/setting",
    "/v2/models/{model}/trace/setting",
    "/v2/logging",
    "/v2/systemsharedmemory/{rest:path}",
    "/v2/cudasharedmemory/{rest:path}",
)


@dataclass(frozen=True, slots=True)
class OpenInference:
    """The dependencies of the routes."""

    serving: InferenceService
    readiness: Readiness
    infer: InferEndpoint
    max_request_bytes: int
    latest_versions: int

    def routes(self) -> list[Route]:
        """Return the routes in the order in which they have to be matched."""
        about_models: tuple[tuple[str, Callable[[ServedModel], Any]], ...] = (
            ("", self._metadata),
            ("/config", self._config),
            ("/ready", self._model_ready),
        )
        return [
            Route("/v2", self._answer_server_metadata),
            Route("/v2/", self._answer_server_metadata),
            Route("/v2/health/live", self._answer_live),
            Route("/v2/health/ready", self._answer_ready),
            Route("/v2/models/stats", self._answer_all_statistics),
            *self._by_version("/stats", self._answer_statistics),
            *(route for end, describe in about_models for route in self._by_version(end, self._about(describe))),
            *(Route(path, self.infer, methods=["POST"]) for path in INFER_PATHS),
            Route("/v2/repository/index", self._answer_index, methods=["POST"]),
            *change_routes(None),
            *(Route(path, _answer_unsupported, methods=["GET", "POST"]) for path in NOT_SUPPORTED),
        ]

    def _by_version(self, end: str, answer: Answer) -> list[Route]:
        return [Route(f"/v2/models/{{model}}{middle}{end}", answer) for middle in ("", "/versions/{version}")]

    def _about(self, describe: Callable[[ServedModel], Any]) -> Answer:
        async def answer(request: Request) -> Response:
            return _json(describe(self._model(request)))

        return answer

    def _model(self, request: Request) -> ServedModel:
        return self.serving.registry.find_any(request.path_params["model"], request.path_params.get("version"))

    def _metadata(self, model: ServedModel) -> dict[str, Any]:
        return model_metadata(model, self.serving.registry)

    def _config(self, model: ServedModel) -> dict[str, Any]:
        return model_config(
            model,
            max_request_bytes=self.max_request_bytes,
            threads=self.serving.batcher.thread_count,
            latest=self.latest_versions,
        )

    def _model_ready(self, model: ServedModel) -> dict[str, Any]:
        self.readiness.check_ready()
        return {"name": model.info.name, "ready": True}

    async def _answer_server_metadata(self, _: Request) -> Response:
        return _json(server_metadata())

    async def _answer_live(self, _: Request) -> Response:
        return _json({"live": True})

    async def _answer_ready(self, _: Request) -> Response:
        self.readiness.check_ready()
        return _json({"ready": True})

    async def _answer_index(self, request: Request) -> Response:
        self.readiness.check_started()
        request.scope["exchange"].expect_body(_INDEX_BODY)
        only_ready = _wants_only_ready(await request.body())
        return _json(repository_index(self.serving.registry, only_ready=only_ready))

    async def _answer_all_statistics(self, _: Request) -> Response:
        self.readiness.check_started()
        total = await self.serving.metrics.total()
        return _json({"model_stats": [model_statistics(model, total) for model in self.serving.registry]})

    async def _answer_statistics(self, request: Request) -> Response:
        """Return the statistics of one version, or of all served versions if the request names none."""
        model = self._model(request)
        is_one = "version" in request.path_params
        models = [model] if is_one else self.serving.registry.versions_of(model.info.name)
        total = await self.serving.metrics.total()
        return _json({"model_stats": [model_statistics(each, total) for each in models]})


def _wants_only_ready(body: bytes) -> bool:
    try:
        document = read_short_json(body.strip() or b"{}")
    except NotJson:
        document = None
    requested = document.get("ready", False) if isinstance(document, dict) else None
    if not isinstance(requested, bool):
        raise BadRequest('The body must be empty, {} or {"ready": true}, which selects the versions that serve.')
    return requested


async def _answer_unsupported(_: Request) -> Response:
    text = "This server has no trace settings, log settings or shared memory; send tensors in the request."
    raise NotFound(text, code="not_supported")


def _json(document: Any) -> Response:
    return JsonAnswer(document)
