"""Residual networks from Python: in this process by `Model`, or on a running server by `Client` and `AsyncClient`.

    from resnet_service import Client, Model

    Model.load("models/cifar10-resnet20").classify("photo.jpg").label
    with Client("http://127.0.0.1:8000") as client:
        client.classify("photo.jpg", top_k=3).predictions

All three have the methods `classify`, `classify_many`, `explain`, `overlay` and `embed`, with the same results.
Importing this package starts nothing and loads no model; `Client` needs httpx (the extra `client`), `Model` an ONNX
Runtime (the extra `cpu` or `gpu`).
"""

from typing import TYPE_CHECKING, Any

from resnet_service.results import (
    Classification,
    Embedding,
    Explanation,
    HeatMap,
    ImageInfo,
    ModelInfo,
    Prediction,
    ResnetError,
    ServedModel,
)

if TYPE_CHECKING:
    from resnet_service.client import AsyncClient, Client
    from resnet_service.model import Model

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "Embedding",
    "Explanation",
    "HeatMap",
    "ImageInfo",
    "Model",
    "ModelInfo",
    "Prediction",
    "ResnetError",
    "ServedModel",
]


def __getattr__(name: str) -> Any:
    """Import a class when it is first used, so that a client does without an engine, and a model without httpx."""
    if name == "Model":
        from resnet_service.model import Model

        return Model
    if name in ("Client", "AsyncClient"):
        from resnet_service import client

        return getattr(client, name)
    raise AttributeError(f"module 'resnet_service' has no attribute {name!r}")
