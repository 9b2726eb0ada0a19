"""What operators and browsers ask: is it alive, is it ready, the page."""

import mimetypes
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Route

from service.api.openapi.document import documented
from service.api.openapi.failures import failures_of_get
from service.api.openapi.schemas import EXAMPLES, ref
from service.http.readiness import Readiness
from service.inference.registry import Registry

_WEB = Path(__file__).parent.parent / "web"
# The page runs its own files and nothing else, talks to this server only, and cannot be framed.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_operations(app: FastAPI, readiness: Readiness, registry: Registry) -> None:
    """Add /health/live and /health/ready."""

    async def live() -> dict[str, Any]:
        """Whether the process answers at all."""
        return {"status": "live"}

    async def ready() -> dict[str, Any]:
        """Whether requests should be sent here: every model is loaded, checked and warm, and no stop is near."""
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


def add_page(app: FastAPI) -> list[str]:
    """Serve the files of the page from memory, index.html at / and the others at their names. Return the paths."""
    paths = []
    for file in sorted(_WEB.iterdir()):
        if file.suffix in (".html", ".js", ".css"):
            path = "/" if file.name == "index.html" else f"/{file.name}"
            app.router.routes.append(Route(path, _file_answer(file)))
            paths.append(path)
    return paths


def page_answer(content: bytes) -> Response:
    """Return a page of this server, allowed to use this server's own files only."""
    headers = {"content-security-policy": _PAGE_POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache"}
    return Response(content, media_type="text/html", headers=headers)


def _file_answer(file: Path) -> Callable[[Any], Any]:
    content = file.read_bytes()
    media_type = mimetypes.types_map[file.suffix]

    async def answer(_: Any) -> Response:
        if file.suffix == ".html":
            return page_answer(content)
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return answer
