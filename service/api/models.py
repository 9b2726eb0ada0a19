"""GET /models and below: which models there are, what their cards say, and whether they serve."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Path

from service.api.failures import failures_of_get
from service.api.openapi import documented
from service.readiness import Readiness
from service.registry import Registry, Served

_Name = Annotated[str, Path(description="The model's name.")]
_Version = Annotated[str, Path(description="A version of it, a number.")]
PATHS = ("/models", "/models/{name}", "/models/{name}/versions/{version}")
_EXAMPLE = {
    "name": "cifar10-resnet20",
    "version": "1",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "state": "READY",
    "reason": "",
    "default": True,
    "max_batch": 32,
    "network": "resnet",
    "depth": 20,
    "labels": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}


def add_models(app: FastAPI, readiness: Readiness, registry: Registry) -> None:
    """Add the three routes."""

    async def models() -> dict[str, Any]:
        """The loaded models, each with its state and what its card says."""
        readiness.check_started()
        return {"models": [_describe(model, registry) for model in registry]}

    async def model(name: _Name) -> dict[str, Any]:
        """The version of a model that answers when a request names none, and the state of each version."""
        readiness.check_started()
        found = registry.find_any(name)
        states = [{name: _state(found)[name] for name in ("version", "state", "reason")}]
        return {**_describe(found, registry), "versions": states}

    async def version(name: _Name, version: _Version) -> dict[str, Any]:
        """One version of a model."""
        readiness.check_started()
        return _describe(registry.find_any(name, version), registry)

    with_versions = {**_EXAMPLE, "versions": [{"version": "1", "state": "READY", "reason": ""}]}
    _add(app, PATHS[0], models, {"models": [_EXAMPLE]}, "not_ready")
    _add(app, PATHS[1], model, with_versions, "not_ready", "model_not_found")
    _add(app, PATHS[2], version, _EXAMPLE, "not_ready", "model_not_found")


def _add(app: FastAPI, path: str, answer: Callable[..., Any], example: dict[str, Any], *codes: str) -> None:
    success = {"description": answer.__doc__, "content": {"application/json": {"example": example}}}
    responses: dict[int | str, dict[str, Any]] = {**documented(failures_of_get(*codes)), 200: success}
    app.add_api_route(path, answer, methods=["GET"], tags=["models"], responses=responses)
    app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)


def _describe(model: Served, registry: Registry) -> dict[str, Any]:
    hidden = {"schema_version", "precision", "golden"}
    card = {} if model.card is None else model.card.model_dump(mode="json", exclude=hidden)
    state = {"default": registry.is_default(model), "max_batch": model.max_batch}
    return {**_state(model), **state, **card}


def _state(model: Served) -> dict[str, Any]:
    return {**asdict(model.info), "state": "READY", "reason": ""}
