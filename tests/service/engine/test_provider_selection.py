"""Which processors are tried: what was asked for, installed and there, and what an operator hears about the rest."""

from collections.abc import Callable

import pytest

from service.engine import provider_selection as provider_choice
from service.engine.cuda_device import Gpu
from service.engine.onnx_runtime import EngineError
from service.engine.provider_options import CPU, CUDA, OPENVINO, TENSORRT
from service.engine.provider_selection import choose_providers

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with the GPU build of ONNX Runtime, with or without what it needs."""
    provider_choice.log_once.cache_clear()

    def make(*, gpu: bool, tensorrt: bool = True, build: tuple[str, ...] = (TENSORRT, CUDA, CPU)) -> None:
        monkeypatch.setattr(provider_choice, "available_providers", lambda: list(build))
        monkeypatch.setattr(provider_choice, "find_gpu", lambda: Gpu("Test GPU", "9.0") if gpu else None)
        monkeypatch.setattr(provider_choice, "load_tensorrt", lambda: tensorrt)
        monkeypatch.setattr(provider_choice, "load_cuda_libraries", lambda: None)

    return make


def test_auto_takes_the_best_first(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine(gpu=True)
    assert choose_providers("auto") == [TENSORRT, CUDA, CPU]
    assert caplog.messages == []


def test_without_a_device_auto_says_once_that_it_falls_back(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine(gpu=False)
    assert choose_providers("auto") == choose_providers("auto") == [CPU]
    assert caplog.messages == ["no CUDA device was found: --providers auto falls back to the CPU"]


@pytest.mark.parametrize("choice", ["cuda", "tensorrt"])
def test_without_a_device_a_requested_gpu_is_refused(machine: Machine, choice: str) -> None:
    machine(gpu=False)
    with pytest.raises(EngineError, match=f"no CUDA device was found for --providers {choice}; are the driver"):
        choose_providers(choice)


def test_without_tensorrt_auto_says_that_it_goes_on_with_cuda(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine(gpu=True, tensorrt=False)
    assert choose_providers("auto") == [CUDA, CPU]
    assert caplog.messages == ["TensorRT is not installed: --providers auto falls back to CUDA"]


def test_without_tensorrt_it_is_refused_where_it_was_requested(machine: Machine) -> None:
    machine(gpu=True, tensorrt=False)
    with pytest.raises(EngineError, match=r"TensorRT is not installed, libnvinfer\.so\.10 cannot be loaded; install"):
        choose_providers("tensorrt")
    assert choose_providers("cuda") == [CUDA]


def test_the_cpu_is_taken_without_a_look_at_the_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(gpu=True)
    monkeypatch.setattr(provider_choice, "find_gpu", lambda: pytest.fail("the driver was asked"))
    assert choose_providers("cpu") == [CPU]
    machine(gpu=True, build=(CPU,))
    assert choose_providers("auto") == [CPU]


def test_openvino_has_to_be_installed_if_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_choice, "is_installed", lambda: False)
    with pytest.raises(EngineError, match="install this project with the extra `openvino`, or choose --providers auto"):
        choose_providers("openvino")
    monkeypatch.setattr(provider_choice, "is_installed", lambda: True)
    assert choose_providers("openvino") == [OPENVINO]
