"""A model on a real GPU: the same answers as on the CPU, on the provider that was asked for. Skipped without one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.engine.cuda_device import find_gpu, load_tensorrt
from service.engine.engine import DEVICE_LOST_STATUS, Engine, EngineOptions
from service.engine.onnx_runtime import available_providers, load_cuda_libraries
from service.engine.provider_options import CUDA, TENSORRT

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "cifar10-resnet20" / "1" / "model.onnx"
HAS_CUDA = CUDA in available_providers() and find_gpu() is not None
pytestmark = [
    pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device, or no ONNX Runtime for one"),
    pytest.mark.timeout(900),
]


def needs_tensorrt() -> None:
    load_cuda_libraries()
    if not load_tensorrt():
        pytest.skip("TensorRT is not installed")


@pytest.mark.parametrize("providers", ["cuda", "tensorrt"])
def test_a_gpu_answers_as_the_cpu_does_whatever_the_batch(providers: str, tmp_path: Path) -> None:
    if providers == "tensorrt":
        needs_tensorrt()
    model = MODEL.read_bytes()
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    on_gpu = Engine(model, providers=providers, host=EngineOptions(cache=tmp_path))
    on_cpu = Engine(model, providers="cpu")
    assert on_gpu.provider == {"cuda": CUDA, "tensorrt": TENSORRT}[providers]
    for count in (1, 2, 3, 31, 32, 70):
        for found, wanted in zip(on_gpu.run(images[:count]), on_cpu.run(images[:count]), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_tensorrt_finds_its_engines_again(tmp_path: Path) -> None:
    needs_tensorrt()
    model = MODEL.read_bytes()
    Engine(model, providers="tensorrt", host=EngineOptions(cache=tmp_path))
    engines = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}
    assert engines
    Engine(model, providers="tensorrt", host=EngineOptions(cache=tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")} == engines


def test_a_poisoned_context_ends_the_process_with_its_status() -> None:
    """A kernel of our own stores to address zero: after that CUDA fails every call of the process."""
    done = subprocess.run([sys.executable, "-m", "tests.gpu.poison", str(MODEL)], check=False, cwd=ROOT, timeout=300)
    assert done.returncode == DEVICE_LOST_STATUS
