"""The routes that load and unload models. Only those of the admin port do so; those of the public port return 403.

The supervisor serves these routes as well, so this module must not import an engine.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.parsing.short_json import NotJson, read_short_json
from service.errors import BadRequest, Forbidden
from service.model_files.repository import VersionState

Change = Callable[[Literal["load", "unload"], str], Awaitable[Sequence[VersionState]]]
LOAD_PATH, UNLOAD_PATH = "/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload"
_NOT_HERE = "Models are loaded and unloaded on the admin port, by the same path."


def change_routes(change: Change | None) -> list[Route]:
    """Return the routes that load and unload a model by `change`; without it they return 403.

    `change` gets the action and the model's name, raises ServiceError, and returns its versions when it is
    done everywhere.
    """

    async def load(request: Request) -> Response:
        return await _change(request, "load", change)

    async def unload(request: Request) -> Response:
        return await _change(request, "unload", change)

    return [Route(LOAD_PATH, load, methods=["POST"]), Route(UNLOAD_PATH, unload, methods=["POST"])]


async def _change(request: Request, action: Literal["load", "unload"], change: Change | None) -> Response:
    if change is None:
        raise Forbidden(_NOT_HERE)
    check_parameters(await request.body())
    await change(action, request.path_params["model"])
    return Response()


def check_parameters(body: bytes) -> None:
    """Raise BadRequest for files and configurations: models come from the repository's folder only."""
    try:
        document = read_short_json(body or b"{}")
    except NotJson:
        raise BadRequest("The body must be JSON, or empty.") from None
    parameters = document.get("parameters") if isinstance(document, dict) else None
    if isinstance(parameters, dict) and any(name == "config" or name.startswith("file:") for name in parameters):
        raise BadRequest("Models come from the repository's folder only: `config` and `file:` are not accepted.")
