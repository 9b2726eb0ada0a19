"""The web pages: / to classify images, /docs with Swagger UI, and the static files of both."""

import mimetypes
from collections.abc import Callable
from os import PathLike, stat_result
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.api.endpoints.responses import JsonAnswer
from service.api.openapi.docs_page import docs_page

_WEB = Path(__file__).parent.parent / "web"
_SWAGGER_UI = _WEB / "swagger-ui"
_PAGE_FOLDERS = (_WEB, _WEB / "page", _WEB / "parts", _WEB / "samples")
_PAGE_FILES = (".html", ".js", ".css", ".jpg")
# A page runs only scripts of this server, sends requests only to this server, and cannot be framed.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NO_CACHE = {"cache-control": "no-cache"}
_FAST = 1  # 1.9 MB become 0.6 MB in a third of the time that level 9 takes for 0.5 MB


def add_page(app: FastAPI) -> list[str]:
    """Serve the files of the page from memory, index.html at / and the others at their names. Return the paths."""
    files = {_path_of(file): file for folder in _PAGE_FOLDERS for file in sorted(folder.iterdir())}
    served = {path: file for path, file in files.items() if file.suffix in _PAGE_FILES}
    app.router.routes += [Route(path, _file_answer(file)) for path, file in served.items()]
    return list(served)


def _path_of(file: Path) -> str:
    return "/" if file.name == "index.html" else f"/{file.relative_to(_WEB).as_posix()}"


def add_docs(app: FastAPI) -> list[str]:
    """Serve /docs, /openapi.json and the files of Swagger UI, these from disk. Return the paths."""

    async def page(_: Request) -> Response:
        return _page_answer(docs_page(app.title, app.description))

    async def document(_: Request) -> Response:
        return JsonAnswer(app.openapi())

    files = GZipMiddleware(_Files(directory=_WEB), compresslevel=_FAST)
    names = sorted(f"/swagger-ui/{file.name}" for file in _SWAGGER_UI.iterdir())
    app.router.routes += [Route("/docs", page), Route("/openapi.json", document)]
    app.router.routes += [Route(name, files, methods=["GET"]) for name in names]
    return ["/docs", "/openapi.json", *names]


class _Files(StaticFiles):
    """Static files that a browser caches and revalidates at each use."""

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_NO_CACHE)
        return response


def _page_answer(content: bytes) -> Response:
    headers = {"content-security-policy": _PAGE_POLICY, "referrer-policy": "no-referrer", **_NO_CACHE}
    return Response(content, media_type="text/html", headers=headers)


def _file_answer(file: Path) -> Callable[[Any], Any]:
    content = file.read_bytes()
    media_type = mimetypes.types_map[file.suffix]

    async def answer(_: Any) -> Response:
        if file.suffix == ".html":
            return _page_answer(content)
        return Response(content, media_type=media_type, headers=_NO_CACHE)

    return answer
