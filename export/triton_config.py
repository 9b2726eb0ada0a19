"""`models/<name>/config.pbtxt`: what NVIDIA Triton's ONNX Runtime backend needs to take the same folder of models.

On a machine without a GPU Triton makes instances of kind CPU, for which the backend does not read the GPU accelerator,
so one file serves both. TensorRT builds its engine for the whole range of batches when it loads the model, not at the
first request.
"""

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto

from export.model_file import write_file
from service.engine.provider_options import LARGEST_GPU_BATCH, profile_shapes

CONFIG_FILE = "config.pbtxt"
GENERATED = "# Written by export-onnx, and again at the next export; without this line it is left as it is."
MAX_BATCH = LARGEST_GPU_BATCH
_TYPES: dict[int, str] = {
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.INT64: "TYPE_INT64",
}
_PRECISION_MODES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}


def write_triton_config(model_folder: Path, model: onnx.ModelProto, precision: str, log: Callable[[str], None]) -> None:
    """Write the configuration into a model's folder, unless the one there was edited.

    Raises ExportError if it cannot be written.
    """
    path = model_folder / CONFIG_FILE
    if path.exists() and not path.read_bytes().startswith(GENERATED.encode()):
        log(f"{path} is not export-onnx's own, so it is left as it is; see that it fits the new version")
        return
    write_file(path, triton_config(model_folder.name, model, precision).encode())


def triton_config(name: str, model: onnx.ModelProto, precision: str) -> str:
    """Return the configuration of a model file in a folder of this name, as protobuf's text format."""
    (images,) = model.graph.input
    outputs = ",\n".join(_tensor(output) for output in model.graph.output)
    return f"""{GENERATED}
# NVIDIA Triton reads it; serve-resnet does not. Labels are in the model card, in the file's metadata.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {MAX_BATCH}
input [
{_tensor(images)}
]
output [
{outputs}
]
# A batch is what is queued when an instance is free; no request waits for later ones.
dynamic_batching {{ }}
# One instance for each GPU, or one on the CPU where there is none; the accelerator below is for GPUs only.
optimization {{
  execution_accelerators {{
    gpu_execution_accelerator [
      {{
        name: "tensorrt"
{_parameters(images, precision)}
        # To keep the engine between starts, in a folder that only Triton can write to:
        # parameters {{ key: "trt_engine_cache_enable" value: "1" }}
        # parameters {{ key: "trt_engine_cache_path" value: "/var/cache/triton" }}
      }}
    ]
  }}
}}
"""


def _tensor(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value or -1) for dim in tensor.shape.dim[1:])  # Triton adds the batch by itself
    return f'  {{ name: "{value.name}" data_type: {_TYPES[tensor.elem_type]} dims: [ {dims} ] }}'


def _parameters(images: onnx.ValueInfoProto, precision: str) -> str:
    _, height, width, _ = (dim.dim_value for dim in images.type.tensor_type.shape.dim)
    values = {
        "precision_mode": _PRECISION_MODES[precision],
        "max_workspace_size_bytes": str(1 << 30),
        **profile_shapes(height, width, MAX_BATCH),
    }
    return "\n".join(f'        parameters {{ key: "{key}" value: "{value}" }}' for key, value in values.items())
