"""A new model file is tried in a process of its own: what crashes there, or hangs, takes nothing with it.

It runs when all cores are idle, is the first that the system ends when memory is short, and leaves no core file. What
it finds good is loaded by the workers, from the same bytes, and the optimised graph that it made is there already.
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
import orjson

from service.engine.engine import EngineOptions
from service.engine.provider_options import LARGEST_GPU_BATCH
from service.inference.registry import has_card, load, read_model
from service.model_files.repository import ModelFile, ModelRepositoryError
from service.settings import Settings
from service.system.cache import cache_root

_NICENESS = 10
_KNOWN_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc"))


def examine(settings: Settings, file: ModelFile, accepted: Collection[str], answer: socket.socket) -> int:
    """Try a file unless its SHA-256 was accepted before; send what was found in it, or why it is refused. Returns 0."""
    _stand_back(settings.load_timeout_s)
    verdict: dict[str, Any]
    try:
        content = read_model(file)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in accepted:
            _try(file, content, settings)
        verdict = {"sha256": sha256, "has_card": has_card(content)}
    except ModelRepositoryError as error:
        verdict = {"refused": error.reason}
    answer.sendall(orjson.dumps(verdict) + b"\n")
    return 0


def _stand_back(longest_s: float) -> None:
    signal.alarm(math.ceil(longest_s) + 1)  # also if nobody is left to end it
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _try(file: ModelFile, content: bytes, settings: Settings) -> None:
    model = _parsed(content)
    if model is not None:
        _check_domains(model)
    host = EngineOptions(cache=cache_root(), largest_gpu_batch=settings.max_batch or LARGEST_GPU_BATCH)
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
    except Exception:  # protobuf's own kind of error; whoever loads the file says so
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
    """Every node of a graph, those of its branches and loops included."""
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
