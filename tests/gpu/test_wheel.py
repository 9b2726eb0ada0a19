"""The pins of the GPU extras, held to what the libraries in ONNX Runtime's own wheel link.

The wheel (255 MB) is the installed one, or the file that ONNXRUNTIME_GPU_WHEEL names; `make test-long` downloads it.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import onnxruntime
import pytest

from service.engine import cuda_device as gpu_device
from service.engine import cuda_memory
from tests.gpu.shared_object import needed_libraries

ROOT = Path(__file__).parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints" / "service-gpu.txt").read_text().splitlines() if "==" in line
)
RUNTIME_VERSION = re.fullmatch(r"onnxruntime-gpu\[cuda,cudnn\]==(\S+)", EXTRAS["gpu"][0])[1]  # type: ignore[index]
TENSORRT_VERSION = re.fullmatch(r"tensorrt-cu13-libs==(\S+)", EXTRAS["tensorrt"][0])[1]  # type: ignore[index]


def test_a_library_lists_what_it_links() -> None:
    folder = Path(onnxruntime.__file__).parent / "capi"
    needed = needed_libraries((folder / "libonnxruntime_providers_shared.so").read_bytes())
    assert "libc.so.6" in needed
    with pytest.raises(ValueError, match="ELF"):
        needed_libraries(b"#!/bin/sh")


def test_the_service_the_extras_and_the_constraints_name_the_same_versions() -> None:
    assert CONSTRAINTS["onnxruntime-gpu"] == RUNTIME_VERSION
    assert CONSTRAINTS["tensorrt-cu13-libs"] == TENSORRT_VERSION
    assert f"libnvinfer.so.{TENSORRT_VERSION.split('.')[0]}" == gpu_device.TENSORRT_LIBRARY
    assert cuda_memory.CUDA_LIBRARY == "libcudart.so.13"  # as in tensorrt-cu13
    assert EXTRAS["tensorrt"][0].startswith(f"{gpu_device.TENSORRT_DISTRIBUTION}==")


def library_of_wheel(name: str, folder: Path, *, download: bool) -> bytes:
    """A provider library of the pinned onnxruntime-gpu."""
    named = os.environ.get("ONNXRUNTIME_GPU_WHEEL")
    if named is None and is_installed():
        return (Path(onnxruntime.__file__).parent / "capi" / name).read_bytes()
    if named is None and not download:
        pytest.skip("no onnxruntime-gpu is installed, and ONNXRUNTIME_GPU_WHEEL names no wheel of it")
    wheel = Path(named) if named else downloaded(folder)
    assert f"-{RUNTIME_VERSION}-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"onnxruntime/capi/{name}")


def is_installed() -> bool:
    try:
        return importlib.metadata.version("onnxruntime-gpu") == RUNTIME_VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*command, f"onnxruntime-gpu=={RUNTIME_VERSION}"], check=False, timeout=600)
    if done.returncode != 0:
        pytest.skip("onnxruntime-gpu cannot be downloaded here")
    return next(folder.glob("onnxruntime_gpu-*.whl"))


def check_tensorrt(needed: list[str]) -> None:
    assert gpu_device.TENSORRT_LIBRARY in needed
    assert cuda_memory.CUDA_LIBRARY in needed
    assert [name for name in needed if "nvinfer" in name] == [f"libnvinfer.so.{TENSORRT_VERSION.split('.')[0]}"]


def test_the_pinned_tensorrt_has_the_major_that_the_wheel_links(tmp_path: Path) -> None:
    library = library_of_wheel("libonnxruntime_providers_tensorrt.so", tmp_path, download=False)
    check_tensorrt(needed_libraries(library))


@pytest.mark.long
@pytest.mark.timeout(700)
def test_the_pinned_tensorrt_has_the_major_that_the_downloaded_wheel_links(tmp_path: Path) -> None:
    library = library_of_wheel("libonnxruntime_providers_tensorrt.so", tmp_path, download=True)
    check_tensorrt(needed_libraries(library))
