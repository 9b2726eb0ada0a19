"""What CUDA's errors mean, by their texts as ONNX Runtime hands them on."""

import pytest

from service.engine.cuda_errors import is_fatal, is_out_of_memory

FATAL = [
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; expr=cudaStreamSynchronize(s)",
    "CUDA failure 719: unspecified launch failure ; GPU=0",
    "CUDA failure 710: device-side assert triggered ; GPU=0",
    "CUDA failure 214: uncorrectable ECC error encountered ; GPU=0",
    "CUDA failure 100: no CUDA-capable device is detected ; GPU=0",
    "CUDA error cudaErrorIllegalAddress(700): an illegal memory access was encountered",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "cudaErrorLaunchFailure",
    "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0; CUDA failure 702: the launch timed out",
]
MEMORY = [
    "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for "
    "requested buffer of size 939524096",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size)",
    "CUDNN failure 4000: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "Available memory of 1024 is smaller than requested bytes of 2048",
]
OTHER = [
    "",
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: images",
    "CUDA failure 209: no kernel image is available for execution on the device ; GPU=0",
    "CUDA failure 712: part or all of the requested memory range is already mapped",
    "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0 ; line=700",
]


@pytest.mark.parametrize("text", FATAL)
def test_after_a_fatal_error_nothing_works_any_more(text: str) -> None:
    assert is_fatal(text)
    assert is_fatal(f"Non-zero status code returned while running Conv node. Status Message: {text}")
    assert not is_out_of_memory(text)


@pytest.mark.parametrize("text", MEMORY)
def test_a_smaller_batch_may_fit_the_memory(text: str) -> None:
    assert is_out_of_memory(text)
    assert not is_fatal(text)


@pytest.mark.parametrize("text", OTHER)
def test_other_errors_are_neither(text: str) -> None:
    assert not is_fatal(text)
    assert not is_out_of_memory(text)


def test_memory_that_runs_out_in_a_dead_context_is_no_reason_to_go_on() -> None:
    assert not is_out_of_memory("CUDA failure 2: out of memory; CUDA failure 700: an illegal memory access")
