"""GET /models and /models/{model} of the admin port: the listing of TorchServe's management API.

The public port has its own `GET /models`, with the cards. Registering, scaling and unregistering stay with the folder
of models and `/admin/models`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.errors import BadRequest, NotFound, ServiceError
from service.http.client_errors import torchserve_error
from service.http.error_responses import retry_header
from service.model_files.repository import MODEL_FILE, ModelFile

PATHS = ("/models", "/models/{model}", "/models/{model}/{version}")
_DEFAULT_LIMIT = 100
_LARGEST_NUMBER = 1_000_000
_ALL = "all"


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker process."""

    index: int
    pid: int
    is_ready: bool
    served_s: float  # seconds since its models were loaded


@dataclass(frozen=True, slots=True)
class Managed:
    """The versions that serve, by name and ascending version, and the workers, each of which has all of them."""

    files: tuple[ModelFile, ...]
    workers: tuple[WorkerFacts, ...]


def management_routes(managed: Callable[[], Managed]) -> list[Route]:
    """Return the routes of the listing. `managed` raises NotReady until the models are loaded."""

    async def listing(request: Request) -> Response:
        return _answered(lambda: _page(managed().files, request.query_params))

    async def description(request: Request) -> Response:
        name, version = request.path_params["model"], request.path_params.get("version")
        return _answered(lambda: _described(managed(), name, version))

    return [Route(PATHS[0], listing), *(Route(path, description) for path in PATHS[1:])]


def _answered(answer: Callable[[], Any]) -> Response:
    """Return a JSON response, for a failure in TorchServe's format."""
    try:
        content, status, headers = orjson.dumps(answer(), option=orjson.OPT_APPEND_NEWLINE), 200, {}
    except ServiceError as error:
        content = torchserve_error(error.status, error.code, error.message)
        status, headers = error.status, retry_header(error)
    return Response(content, status, headers, "application/json")


def _page(files: Iterable[ModelFile], query: Any) -> dict[str, Any]:
    """Return a page of the models, each with its highest version, which serves requests without one."""
    models = list({file.name: file for file in files}.values())
    limit = _number(query, "limit", _DEFAULT_LIMIT, least=1)
    start = _number(query, "next_page_token", 0, least=0)
    listed = [{"modelName": file.name, "modelUrl": _url_of(file)} for file in models[start : start + limit]]
    following = {"nextPageToken": str(start + limit)} if start + limit < len(models) else {}
    return {**following, "models": listed}


def _number(query: Any, name: str, default: int, *, least: int) -> int:
    """Return a number of the query. Raises BadRequest."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= _LARGEST_NUMBER):
        raise BadRequest(f"{name} must be a whole number from {least} to {_LARGEST_NUMBER:,}.")
    return int(text)


def _described(managed: Managed, name: str, version: str | None) -> list[dict[str, Any]]:
    """Return the highest version of a model, the given one, or all. Raises NotFound."""
    files = [file for file in managed.files if file.name == name]
    if not files:
        raise NotFound(f"Model not found: {name}", code="model_not_found")
    if version is None:
        files = files[-1:]
    elif version != _ALL:
        files = [file for file in files if file.version == version.removesuffix(".0")]
    if not files:
        raise NotFound(f"Model version: {version} does not exist for model: {name}", code="model_not_found")
    return [_description(file, managed.workers) for file in files]


def _description(file: ModelFile, workers: tuple[WorkerFacts, ...]) -> dict[str, Any]:
    return {
        "modelName": file.name,
        "modelVersion": file.version,
        "modelUrl": _url_of(file),
        "runtime": "onnxruntime",
        "minWorkers": len(workers),
        "maxWorkers": len(workers),
        "batchSize": file.max_batch or 1,
        "maxBatchDelay": 0,  # batches form without a timer
        "loadedAtStartup": True,
        "workers": [_worker(worker) for worker in workers],
    }


def _worker(worker: WorkerFacts) -> dict[str, Any]:
    started = datetime.fromtimestamp(time.time() - worker.served_s, UTC)
    return {
        "id": str(worker.index),
        "startTime": f"{started:%Y-%m-%dT%H:%M:%S}.{started.microsecond // 1000:03}Z",
        "status": "READY" if worker.is_ready else "LOADING",
        "pid": worker.pid,
    }


def _url_of(file: ModelFile) -> str:
    """Return where a file lies in the folder of models; the folder itself stays private."""
    return f"{file.name}/{file.version}/{MODEL_FILE}"
