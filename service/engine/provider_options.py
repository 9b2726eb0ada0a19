"""The order in which providers are tried, and the options of each for ONNX Runtime.

The service uses these options, and the exporter records them in the model card for other servers.
"""

from collections.abc import Sequence
from pathlib import Path

from service.model_files.card import Precision, Recommended

INPUT = "images"
LARGEST_GPU_BATCH = 32
_USUAL_BATCH = 8  # for which TensorRT optimises: between a single request and a full batch

TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
OPENVINO = "OpenVINO"  # a library of its own, not a provider of ONNX Runtime
GPU_PROVIDERS = (TENSORRT, CUDA)
# Value of `providers` → the providers that may run the model, best first. `auto` measures if OPENVINO replaces CPU.
CHOICES = {
    "auto": (TENSORRT, CUDA, CPU),
    "tensorrt": (TENSORRT,),
    "cuda": (CUDA,),
    "openvino": (OPENVINO,),
    "cpu": (CPU,),
}
# Provider → the list for ONNX Runtime: the provider, then the providers of operators that it does not support.
CHAINS = {TENSORRT: (TENSORRT, CUDA, CPU), CUDA: (CUDA, CPU), CPU: (CPU,)}

# fp32 means fp32 in cuDNN, cuBLAS and TensorRT: TF32 may miss the golden example. fp16 is the fast precision.
ENVIRONMENT = {"NVIDIA_TF32_OVERRIDE": "0"}
_CUDA_OPTIONS = {
    # EXHAUSTIVE, the default, searches again for every new batch size: 634 ms against 1.9.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",  # with the largest batch first, memory stays flat from then on
    "use_tf32": "0",
}


def buckets(largest: int) -> tuple[int, ...]:
    """Return the batch sizes that a GPU runs: 1, 2, 4 … and `largest` itself. Others are padded to the next."""
    if largest < 1:
        raise ValueError(f"the largest batch is {largest}, below 1")
    powers = (2**exponent for exponent in range((largest - 1).bit_length()))
    return (*powers, largest)


def bucket_of(count: int, sizes: Sequence[int]) -> int:
    """Return the smallest of the ascending sizes that is at least the number of images."""
    return next(size for size in sizes if size >= count)


def profile_shapes(height: int, width: int, largest: int) -> dict[str, str]:
    """Return TensorRT's profile for every batch from 1 to `largest`.

    Without one, ONNX Runtime builds a new engine whenever a batch leaves the range seen so far.
    """
    shapes = {"min": 1, "opt": min(_USUAL_BATCH, largest), "max": largest}
    return {f"trt_profile_{name}_shapes": f"{INPUT}:{batch}x{height}x{width}x3" for name, batch in shapes.items()}


def cuda_options() -> dict[str, str]:
    """Return the options of the CUDA provider."""
    return dict(_CUDA_OPTIONS)


def tensorrt_options(
    height: int, width: int, largest: int, precision: Precision, engines: Path | None = None
) -> dict[str, str]:
    """Return the options of the TensorRT provider. `engines` is the folder to keep engines in; None keeps none.

    The precision lives in the graph, but TensorRT 10 uses the fast kernels only if this option is also set.
    """
    options = profile_shapes(height, width, largest)
    if precision != "fp32":
        options[f"trt_{precision}_enable"] = "1"
    if engines is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines)}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(engines)}
    return options


def recommended(height: int, width: int, precision: Precision, largest: int = LARGEST_GPU_BATCH) -> Recommended:
    """Return the card's recommendations for serving the file on a GPU."""
    return Recommended(
        precision=precision,
        batch_sizes=buckets(largest),
        cuda=cuda_options(),
        tensorrt=tensorrt_options(height, width, largest, precision),
    )
