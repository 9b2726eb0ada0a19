"""The process that validates a new model file, so that a crash or a hang while loading it affects no worker.

It has the lowest priority, is the first that the system kills if memory is short, and leaves no core file. The workers
load an accepted file from the same bytes, and find its optimized graph in the cache.
"""

import contextlib
import hashlib
import math
import os
import resource
import signal
import socket
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from service.engine.engine import EngineOptions
from service.engine.provider_options import LARGEST_GPU_BATCH
from service.inference.registry import has_card, load, read_model
from service.model_files.repository import ModelFile, ModelRepositoryError
from service.processes.messages import FileAccepted, FileRefused, encode
from service.settings import Settings
from service.system.cache import cache_root
from service.system.cores import available_cores

_NICENESS = 10
_KNOWN_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc"))


def validate(settings: Settings, file: ModelFile, accepted: Collection[str], channel: socket.socket) -> int:
    """Load a file unless its SHA-256 was accepted before, send `FileAccepted` or `FileRefused`, and return 0."""
    _lower_priority(settings.load_timeout_s)
    result: FileAccepted | FileRefused
    try:
        content = read_model(file, model_keys=settings.model_keys)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in accepted:
            _load(file, content, settings)
        result = FileAccepted(sha256, has_card(content))
    except ModelRepositoryError as error:
        result = FileRefused(error.reason)
    channel.sendall(encode(result))
    return 0


def _lower_priority(longest_s: float) -> None:
    signal.alarm(math.ceil(longest_s) + 1)  # in case the supervisor has ended
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _load(file: ModelFile, content: bytes, settings: Settings) -> None:
    model = _parsed(content)
    if model is not None:
        _check_domains(model)
    host = EngineOptions(
        exclusive_threads=settings.engine_threads
        or available_cores(),  # as in the workers, so that they keep the choice
        cache=cache_root(),
        largest_gpu_batch=settings.max_batch or LARGEST_GPU_BATCH,
        allow_bf16=settings.allow_bf16,
    )
    load(file, providers=settings.providers, max_batch=settings.max_batch, host=host, content=content)
    if model is not None:
        _check_graph(model)


def _parsed(content: bytes) -> Any:
    """Return the file as the `onnx` package reads it, or None if that is not installed or cannot."""
    try:
        import onnx
    except ImportError:
        return None
    try:
        return onnx.load_model_from_string(content)
    except Exception:  # protobuf's own kind of error; loading the file reports it
        return None


def _check_graph(model: Any) -> None:
    import onnx

    constants = [
        attribute for node in _nodes(model.graph) if node.op_type == "Constant" for attribute in node.attribute
    ]
    tensors = [*model.graph.initializer, *(constant.t for constant in constants)]
    if any(map(_has_nan, tensors)) or any(np.isnan([constant.f, *constant.floats]).any() for constant in constants):
        raise ModelRepositoryError("the model has weights that are not numbers; train or export it again")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        raise ModelRepositoryError("the file is not valid ONNX; `export-onnx check` shows why") from None


def _check_domains(model: Any) -> None:
    own = {function.domain for function in model.functions}
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    unknown = sorted({node.domain for node in nodes} - own - _KNOWN_DOMAINS)
    if unknown:
        raise ModelRepositoryError(
            f"the model uses operators of the domain {unknown[0]!r}; the known ones are ai.onnx, ai.onnx.ml and "
            "com.microsoft"
        )


def _nodes(graph: Any) -> Iterable[Any]:
    """Yield every node of a graph, including those of its branches and loops."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _has_nan(tensor: Any) -> bool:
    import onnx

    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
        return False
    return bool(np.isnan(onnx.numpy_helper.to_array(tensor)).any())
