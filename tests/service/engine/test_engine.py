"""One ONNX Runtime session: what it refuses to load, what it says it is, what it answers."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.engine import engine as engine_module
from service.engine import onnx_runtime as runtime
from service.engine import provider_selection as provider_choice
from service.engine.cuda_device import Gpu
from service.engine.engine import Engine, EngineError, EngineOptions, check_one_runtime
from service.engine.gpu import DeviceLost
from service.errors import EngineFailed
from tests.support.model_files.tiny_model import LABELS, SIDE, TOP


def batch(*colours: tuple[int, int, int]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    return np.array([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in colours])


def test_pixels_go_in_and_named_outputs_come_out(model_file: bytes) -> None:
    images = batch((255, 0, 0), (0, 0, 255), (255, 255, 255))
    outputs = ("top_indices", "probabilities", "embedding", "class_maps")
    top, probabilities, embedding, maps = Engine(model_file).run(images, outputs)
    assert [LABELS[best] for best in top[:, 0]] == ["red", "blue", "white"]
    assert probabilities.shape == (3, len(LABELS))
    np.testing.assert_allclose(embedding, [[1, 0, 0], [0, 0, 1], [1, 1, 1]])
    assert maps.shape == (3, TOP, SIDE, SIDE)


def test_it_says_what_it_runs_on_and_what_it_takes(model_file: bytes) -> None:
    engine = Engine(model_file)
    assert engine.provider == "CPUExecutionProvider"
    assert (engine.input_height, engine.input_width) == (SIDE, SIDE)
    assert "model_card" in engine.metadata


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_file_that_is_cut_off_is_refused_in_one_line(model_file: bytes, cut: int) -> None:
    with pytest.raises(EngineError) as failure:
        Engine(model_file[:cut])
    assert "\n" not in str(failure.value)


def test_weights_outside_the_file_are_refused(
    model_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        onnx.load_from_string(model_file), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look for them
    with pytest.raises(EngineError, match="outside its file"):
        Engine(path.read_bytes())
    monkeypatch.setattr(engine_module, "_EXTERNAL_DATA", b"never found")
    with pytest.raises(EngineError, match="damaged"):
        Engine(path.read_bytes())


def changed(model_file: bytes, change: str) -> bytes:
    model = onnx.load_from_string(model_file)
    graph = model.graph
    if change == "input name":
        graph.input[0].name = "pictures"
        graph.node[0].input[0] = "pictures"
    elif change == "fixed batch":
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    elif change == "open height":
        graph.input[0].type.tensor_type.shape.dim[1].dim_param = "H"
    elif change == "no output":
        del graph.output[3]
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("input name", "one input, `images` of uint8"),
        ("fixed batch", "with only N open"),
        ("open height", "with only N open"),
        ("no output", "`class_maps` must be tensor\\(float\\) with 4 axes; the file has no such output"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused(model_file: bytes, change: str, complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint):
        Engine(changed(model_file, change))


def test_a_provider_that_is_not_there_is_refused(model_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="no cuda provider, it has CPU; install this project with the extra `gpu`"):
        Engine(model_file, providers="cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has a GPU, its driver and its libraries, with an ONNX Runtime that knows CUDA."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory: None)
    monkeypatch.setattr(provider_choice, "find_gpu", lambda: Gpu("Test GPU", "9.0"))


@pytest.mark.usefixtures("gpu")
def test_a_provider_that_does_not_run_is_not_replaced_in_silence(
    model_file: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = onnxruntime.InferenceSession

    def without_a_gpu(model: bytes, options: Any, *, providers: list[Any], **_: Any) -> Any:
        return session(model, options, providers=[name for name, _ in providers if name.startswith("CPU")])

    monkeypatch.setattr(onnxruntime, "InferenceSession", without_a_gpu)
    with pytest.raises(EngineError, match="cannot run this model here; see the log for the cause"):
        Engine(model_file, providers="cuda")
    caplog.clear()
    assert Engine(model_file, providers="auto").provider == "CPUExecutionProvider"
    (record,) = caplog.records
    assert "CUDAExecutionProvider could not load the model: ONNX Runtime continues without it" in record.getMessage()


@pytest.mark.usefixtures("gpu")
def test_why_a_provider_failed_is_in_the_log_in_one_line(
    model_file: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = onnxruntime.InferenceSession

    def out_of_memory(model: bytes, options: Any, *, providers: list[Any], **_: Any) -> Any:
        if len(providers) > 1:
            raise RuntimeError("CUDA failure 2:\nout of memory")
        return session(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", out_of_memory)
    assert Engine(model_file).provider == "CPUExecutionProvider"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "CUDAExecutionProvider could not load the model: CUDA failure 2: out of memory"
    caplog.clear()
    with pytest.raises(EngineError, match="truncated or damaged"):
        Engine(b"\x08\x0agarbage")
    assert caplog.records == []  # a broken model has one reason, which is the error's


class LosesItsDevice:
    """Sessions whose context was poisoned by an earlier run."""

    largest_batch = 8

    def run(self, images: Any, outputs: Any, *, exclusive: bool = False) -> Any:
        raise DeviceLost("CUDA failure 700: an illegal memory access was encountered")


def test_a_lost_device_is_reported_before_the_answer_fails(model_file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    engine = Engine(model_file, host=EngineOptions(on_device_lost=lambda: told.append("lost")))
    monkeypatch.setattr(engine, "_sessions", LosesItsDevice())
    with pytest.raises(EngineFailed):
        engine.run(batch((0, 0, 0)))
    assert told == ["lost"]
    assert engine.largest_batch == 8


def test_an_unknown_choice_of_provider_is_a_programmers_mistake(model_file: bytes) -> None:
    with pytest.raises(ValueError, match="'rocm'"):
        Engine(model_file, providers="rocm")


def test_a_failing_run_is_reported_without_the_librarys_words(model_file: bytes) -> None:
    with pytest.raises(EngineFailed) as failure:
        Engine(model_file).run(np.zeros((1, SIDE, SIDE + 1, 3), np.uint8))
    assert "onnx" not in failure.value.message.lower()


def test_both_builds_of_the_runtime_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "version", lambda distribution: "1.0")
    with pytest.raises(EngineError, match="both installed"):
        check_one_runtime()


def test_one_build_of_the_runtime_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(distribution: str) -> str:
        if distribution == "onnxruntime-gpu":
            raise PackageNotFoundError(distribution)
        return "1.0"

    monkeypatch.setattr(runtime, "version", version)
    check_one_runtime()


def test_telemetry_is_off_before_the_runtime_is_imported() -> None:
    script = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import service.engine.engine\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    said = subprocess.run(
        [sys.executable, "-c", script], check=False, env=clean, capture_output=True, text=True, timeout=60
    )
    assert said.stdout == "1\n", said.stderr
