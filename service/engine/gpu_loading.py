"""The loading of a model on a GPU: the provider's options, TensorRT's engines from the cache, and the warm-up."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from service.engine.cuda_device import find_gpu, tensorrt_version
from service.engine.cuda_memory import CudaDevice
from service.engine.gpu import GpuSessions
from service.engine.model_interface import ModelInterface
from service.engine.onnx_runtime import available_providers, open_session, runtime_version
from service.engine.provider_options import (
    CHAINS,
    CUDA,
    ENVIRONMENT,
    TENSORRT,
    cuda_options,
    profile_shapes,
    tensorrt_options,
)
from service.engine.tensorrt_cache import Report, engine_folder, reported
from service.model_files.card import BadCard, Precision, read_card
from service.system.cache import key_of


class ProviderUnavailable(Exception):
    """The provider is installed, but ONNX Runtime opened the session without it."""


def open_gpu(
    model: bytes, provider: str, interface: ModelInterface, *, largest_batch: int, cache: Path | None, report: Report
) -> GpuSessions:
    """Return a warmed-up model on the provider. Raises ProviderUnavailable, or the exceptions of ONNX Runtime."""
    if provider == CUDA:
        return _open(model, provider, {CUDA: cuda_options()}, largest_batch)
    precision = _precision(interface)
    size = (interface.height, interface.width, largest_batch)
    key = engine_key(hashlib.sha256(model).hexdigest(), precision, profile_shapes(*size))
    activity = "building TensorRT engines, once for this GPU, or loading them"
    with reported(activity, report), engine_folder(cache, key) as engines:
        options_of = {TENSORRT: tensorrt_options(*size, precision, engines), CUDA: cuda_options()}
        return _open(model, provider, options_of, largest_batch)


def engine_key(model_sha256: str, precision: Precision, profile: Mapping[str, str]) -> str:
    """Return the name of the folder of engines, made of all properties that they depend on."""
    gpu = find_gpu()
    return key_of(
        model=model_sha256,
        precision=precision,
        profile=json.dumps(profile, sort_keys=True),
        runtime=runtime_version(),
        tensorrt=tensorrt_version(),
        gpu=gpu.name if gpu else "",
        compute_capability=gpu.compute_capability if gpu else "",
        environment=json.dumps({name: os.environ.get(name) for name in ENVIRONMENT}),
    )


def _open(model: bytes, provider: str, options_of: Mapping[str, Mapping[str, str]], largest_batch: int) -> GpuSessions:
    available = available_providers()
    chain = [(name, options_of.get(name, {})) for name in CHAINS[provider] if name in available]
    session = open_session(model, chain)
    if session.get_providers()[0] != provider:
        raise ProviderUnavailable("ONNX Runtime continues without it; check the driver and the GPU")
    # Where TensorRT fails CUDA is the better choice.
    return GpuSessions(session, CudaDevice(), largest_batch=largest_batch, tries_smaller=provider == CUDA)


def _precision(interface: ModelInterface) -> Precision:
    try:
        return read_card(interface.metadata).precision
    except BadCard:  # reported elsewhere, when the card itself is read
        return "fp32"
