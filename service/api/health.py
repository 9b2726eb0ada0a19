"""GET /health/live and GET /health/ready for orchestrators and load balancers."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from service.api.openapi.document import documented
from service.api.openapi.examples import EXAMPLES
from service.api.openapi.failures import failures_of_get
from service.api.openapi.schemas import ref
from service.http.readiness import Readiness
from service.inference.registry import Registry


def add_operations(app: FastAPI, readiness: Readiness, registry: Registry) -> None:
    """Add /health/live and /health/ready."""

    async def live() -> dict[str, Any]:
        """The process is alive."""
        return {"status": "live"}

    async def ready() -> dict[str, Any]:
        """The server is ready for requests: all models are loaded, checked and warmed up, and no stop is pending."""
        readiness.check_ready()
        return {"status": "ready", "models": [asdict(model.info) for model in registry]}

    _add(app, "/health/live", live, "Live")
    _add(app, "/health/ready", ready, "Ready", "not_ready", "draining")


def _add(app: FastAPI, path: str, answer: Callable[[], Any], schema: str, *codes: str) -> None:
    success = {
        "description": answer.__doc__,
        "content": {"application/json": {"schema": ref(schema), "example": EXAMPLES[schema]}},
    }
    responses: dict[int | str, dict[str, Any]] = {**documented(failures_of_get(*codes)), 200: success}
    name = path.strip("/").replace("/", "_")
    app.add_api_route(
        path, answer, methods=["GET"], response_model=None, operation_id=name, tags=["operations"], responses=responses
    )
    app.add_api_route(path, answer, methods=["HEAD"], response_model=None, include_in_schema=False)
