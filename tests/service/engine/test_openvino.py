"""OpenVINO itself, where the extra is installed: `make test-openvino`."""

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the extra `openvino` is not installed; `make test-openvino` installs it")

from service.engine import engine_choice
from service.engine.engine import Engine, EngineError, EngineOptions
from service.engine.openvino_sessions import OpenVinoSessions, has_bf16
from service.engine.provider_options import OPENVINO
from service.inference.classifier import load_classifier
from tests.support.model_files.tiny_model import SIDE, tiny_model

ROOT = Path(__file__).parents[3]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
ALL_OUTPUTS = ("probabilities", "top_indices", "embedding", "class_maps")


def shipped(name: str) -> bytes:
    return (ROOT / "models" / name / "1" / "model.onnx").read_bytes()


def test_all_outputs_are_those_of_onnx_runtime() -> None:
    expected = Engine(tiny_model(), providers="cpu").run(IMAGES, ALL_OUTPUTS)
    found = Engine(tiny_model(), providers="openvino").run(IMAGES, ALL_OUTPUTS)
    for one, other in zip(expected, found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [("cifar10-resnet20", 32), ("everyday-resnet18-int8", 80)])
def test_the_shipped_models_pass_their_golden_examples_and_agree(name: str, side: int) -> None:
    model = shipped(name)
    assert load_classifier("m", "1", model, providers="openvino", max_batch=4).info.provider == OPENVINO
    engines = [Engine(model, providers=providers) for providers in ("cpu", "openvino")]
    assert engine_choice.disagreement_of(engines[0], engines[1], (side, side), 0.05) is None


def test_threads_run_a_model_at_the_same_time_and_get_their_own_answers(tmp_path: Path) -> None:
    sessions = OpenVinoSessions(tiny_model(), exclusive_threads=2, cache=tmp_path)
    expected = [sessions.run(IMAGES[n : n + 1], ALL_OUTPUTS[:1])[0] for n in range(len(IMAGES))]
    wrong: list[int] = []

    def run(number: int) -> None:
        for _ in range(50):
            answer = sessions.run(IMAGES[number : number + 1], ALL_OUTPUTS[:1], exclusive=number == 0)[0]
            if not np.allclose(answer, expected[number], atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(IMAGES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_answer_is_not_changed_by_the_next_run() -> None:
    sessions = OpenVinoSessions(tiny_model())
    first = sessions.run(IMAGES[:1], ALL_OUTPUTS[:1])[0]
    kept = first.copy()
    sessions.run(IMAGES[1:2], ALL_OUTPUTS[:1])
    assert np.array_equal(first, kept)


def test_bf16_is_used_only_if_it_is_allowed_and_is_named() -> None:
    model = shipped("cifar10-resnet20")
    allowed = EngineOptions(allow_bf16=True)
    assert Engine(model, providers="openvino").precision is None
    expected = "bf16" if has_bf16() else None
    assert Engine(model, providers="openvino", host=allowed).precision == expected
    assert Engine(shipped("everyday-resnet18-int8"), providers="openvino", host=allowed).precision is None
    loaded = load_classifier("m", "1", model, providers="openvino", max_batch=4, host=allowed)
    assert loaded.info.precision == (expected or "fp32")


def test_auto_measures_once_and_serves_what_it_chose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = EngineOptions(exclusive_threads=2, cache=tmp_path)
    with caplog.at_level(logging.INFO):
        providers = {Engine(shipped("cifar10-resnet20"), host=host).provider for _ in range(2)}
    assert len(providers) == 1
    assert caplog.text.count("times as fast as ONNX Runtime") == 2
    assert len(list((tmp_path / "engine-choices").iterdir())) == 1


def test_a_file_that_openvino_cannot_read_is_refused_in_one_line() -> None:
    with pytest.raises(EngineError) as refusal:
        Engine(b"not a model", providers="openvino")
    assert "\n" not in str(refusal.value)
