"""GET /models and its sub-paths: the models, their cards, and the states of their versions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Path

from service.api.openapi.document import documented
from service.api.openapi.failures import failures_of_get
from service.api.openapi.model_schemas import HIDDEN
from service.api.openapi.schemas import ref
from service.http.readiness import Readiness
from service.inference.registry import Registry
from service.model_files.repository import VersionState

_Name = Annotated[str, Path(description="The model's name.", examples=["cifar10-resnet56"])]
_Version = Annotated[str, Path(description="A version of it, a number.", examples=["1"])]
PATHS = ("/models", "/models/{name}", "/models/{name}/versions/{version}")
_EXAMPLE = {
    "name": "cifar10-resnet56",
    "version": "1",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "state": "READY",
    "reason": "",
    "default": True,
    "max_batch": 32,
    "network": "resnet56",
    "depth": 56,
    "labels": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The limits on one image, for clients that shrink a larger one before they send it."""

    max_image_bytes: int
    max_pixels: int
    max_side: int


_LIMITS_EXAMPLE = UploadLimits(max_image_bytes=20_971_520, max_pixels=26_000_000, max_side=12_000)


def add_models(app: FastAPI, readiness: Readiness, registry: Registry, limits: UploadLimits) -> None:
    """Add the three routes."""

    async def models() -> dict[str, Any]:
        """All model versions: the served ones with their cards, and rejected or unloaded ones with a reason."""
        readiness.check_started()
        return {"models": [_describe(state, registry) for state in registry.states], "limits": asdict(limits)}

    async def model(name: _Name) -> dict[str, Any]:
        """The version of a model that serves requests without a version, and the state of each version."""
        readiness.check_started()
        states = registry.states_of(name)
        best = max(states, key=lambda state: (registry.serves(state), int(state.version)))
        versions = [{"version": state.version, "state": state.state, "reason": state.reason} for state in states]
        return {**_describe(best, registry), "versions": versions}

    async def version(name: _Name, version: _Version) -> dict[str, Any]:
        """One version of a model."""
        readiness.check_started()
        return _describe(registry.states_of(name, version)[0], registry)

    with_versions = {**_EXAMPLE, "versions": [{"version": "1", "state": "READY", "reason": ""}]}
    every_model = {"models": [_EXAMPLE], "limits": asdict(_LIMITS_EXAMPLE)}
    _add(app, PATHS[0], models, "list_models", ("Models", every_model), "not_ready")
    _add(app, PATHS[1], model, "get_model", ("ModelWithVersions", with_versions), "not_ready", "model_not_found")
    _add(app, PATHS[2], version, "get_model_version", ("ModelDescription", _EXAMPLE), "not_ready", "model_not_found")


def _add(
    app: FastAPI,
    path: str,
    answer: Callable[..., Any],
    name: str,
    documentation: tuple[str, dict[str, Any]],
    *codes: str,
) -> None:
    schema, example = documentation
    content = {"application/json": {"schema": ref(schema), "example": example}}
    success = {"description": answer.__doc__, "content": content}
    responses: dict[int | str, dict[str, Any]] = {**documented(failures_of_get(*codes)), 200: success}
    app.add_api_route(
        path, answer, methods=["GET"], response_model=None, operation_id=name, tags=["models"], responses=responses
    )
    app.add_api_route(path, answer, methods=["HEAD"], response_model=None, include_in_schema=False)


def _describe(state: VersionState, registry: Registry) -> dict[str, Any]:
    if not registry.serves(state):
        return {**asdict(state), "default": False}
    model = registry.find_any(state.name, state.version)
    card = {} if model.card is None else model.card.model_dump(mode="json", exclude=set(HIDDEN))
    serving = {"default": registry.is_default(model), "max_batch": model.max_batch}
    return {**asdict(model.info), **asdict(state), **serving, **card}
