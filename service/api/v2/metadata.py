"""Metadata of the Open Inference Protocol: the server, its models, and the shapes of their tensors."""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from service.engine.provider_options import GPU_PROVIDERS
from service.inference.registry import Registry, ServedModel
from service.model_files.repository import MODEL_FILE
from service.model_files.tensor_spec import TensorSpec

NAME = "resnet-service"
EXTENSIONS = (
    "classification",
    "schedule_policy",
    "model_repository",
    "model_configuration",
    "statistics",
    "parameters",
    "binary_tensor_data",
)
_PLATFORM = "onnxruntime_onnx"
_LARGEST_BATCH = 1024  # announced; the server accepts as many rows as fit into a request
_HEAD_BYTES = 64 * 1024  # for a request's JSON


def server_metadata() -> dict[str, Any]:
    """Return the response document of GET /v2."""
    return {"name": NAME, "version": version(NAME), "extensions": EXTENSIONS}


def model_metadata(model: ServedModel, registry: Registry) -> dict[str, Any]:
    """Return the served versions of a model, and the inputs and outputs of one version.

    The batch axis is the first axis of each shape, -1.
    """
    return {
        "name": model.info.name,
        "versions": [other.info.version for other in registry.versions_of(model.info.name)],
        "platform": _PLATFORM,
        "inputs": [_tensor(spec) for spec in model.inputs],
        "outputs": [_tensor(spec) for spec in model.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def model_config(model: ServedModel, *, max_request_bytes: int, threads: int, latest: int) -> dict[str, Any]:
    """Return a model's configuration in Triton's format; its `dims` do not include the batch axis.

    `latest` is the number of served versions of the model.
    """
    kind = "KIND_GPU" if model.info.provider in GPU_PROVIDERS else "KIND_CPU"
    batching = {"preferred_batch_size": [], "max_queue_delay_microseconds": 0}
    return {
        "name": model.info.name,
        "platform": _PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": latest}},
        "max_batch_size": _largest_batch(model, max_request_bytes),
        "input": [_configured(spec, model) for spec in model.inputs],
        "output": [_configured(spec, model) for spec in model.outputs],
        **({"dynamic_batching": batching} if model.is_batched else {}),
        "instance_group": [{"name": model.info.name, "kind": kind, "count": threads}],
        "default_model_filename": MODEL_FILE,
        "model_transaction_policy": {"decoupled": False},
        "response_cache": {"enable": False},
        "parameters": {"sha256": {"string_value": model.info.sha256}},
    }


def _configured(spec: TensorSpec, model: ServedModel) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": spec.shape[model.is_batched :]}


def _largest_batch(model: ServedModel, max_request_bytes: int) -> int:
    """Return the largest number of rows of a request with raw bytes; 0 if the model has no batch axis."""
    if not model.is_batched:
        return 0
    row_bytes = sum(spec.row_bytes for spec in model.inputs)
    return max(1, min(_LARGEST_BATCH, (max_request_bytes - _HEAD_BYTES) // row_bytes))


def repository_index(registry: Registry, *, only_ready: bool) -> list[dict[str, str]]:
    """Return all versions that serve, are loading, were rejected or were unloaded; or only those that serve."""
    return [asdict(state) for state in registry.states if state.state == "READY" or not only_ready]
