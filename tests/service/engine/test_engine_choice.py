"""The choice between ONNX Runtime and OpenVINO on a CPU. No real measurement of time: ratios are given."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine import engine_choice, openvino_sessions
from service.engine.engine_choice import disagreement_of, faster_engine, sample_images
from service.engine.provider_options import CPU, OPENVINO

SIZE = (8, 12)


class Fixed:
    """Sessions whose probabilities are those of `first` and the rest for each image."""

    def __init__(self, first: float = 0.9) -> None:
        self.first = first

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str], *, exclusive: bool = False) -> list[NDArray[Any]]:
        probabilities = np.tile(np.array([self.first, 1 - self.first], np.float32), (len(images), 1))
        return [probabilities, np.argsort(-probabilities)]


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The ratios that the next rounds measure; OpenVINO counts as installed."""
    ratios: list[float] = []
    monkeypatch.setattr(openvino_sessions, "is_installed", lambda: True)
    monkeypatch.setattr(openvino_sessions, "openvino_version", lambda: "1")
    left: Iterator[float] = iter(ratios)
    monkeypatch.setattr(engine_choice, "_ratio", lambda *_: next(left))
    return ratios


def choose(cache: Path | None, other: Fixed | None = None, *, model: bytes = b"m", precision: str = "fp32") -> str:
    def open_engine(provider: str) -> Fixed:
        return Fixed() if provider == CPU else other or Fixed()

    return faster_engine(model, open_engine, size=SIZE, precision=precision, callers=2, cache=cache)


@pytest.mark.parametrize(
    ("measured", "expected"), [([1.1, 1.3, 1.2], OPENVINO), ([1.5, 1.09, 1.5], CPU), ([0.8, 0.8, 0.8], CPU)]
)
def test_openvino_has_to_be_faster_in_each_round(
    tmp_path: Path, rounds: list[float], measured: list[float], expected: str
) -> None:
    rounds += measured
    assert choose(tmp_path) == expected


def test_the_choice_is_measured_once_for_each_file(
    tmp_path: Path, rounds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rounds += [1.2, 1.2, 1.2, 0.5, 0.5, 0.5]
    with caplog.at_level(logging.INFO):
        assert [choose(tmp_path), choose(tmp_path), choose(tmp_path, model=b"other")] == [OPENVINO, OPENVINO, CPU]
    assert "the model runs on OpenVINO: OpenVINO is 1.20, 1.20, 1.20 times as fast as ONNX Runtime" in caplog.text


def test_an_engine_with_other_answers_is_not_taken_however_fast_it_is(tmp_path: Path, rounds: list[float]) -> None:
    rounds += [2.0, 2.0, 2.0]
    assert choose(tmp_path, Fixed(0.88)) == CPU
    assert choose(tmp_path, Fixed(0.88), precision="int8") == OPENVINO  # within the tolerance of int8


def test_nothing_is_measured_without_openvino_or_without_a_cache(
    tmp_path: Path, rounds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose(None) == CPU
    monkeypatch.setattr(openvino_sessions, "is_installed", lambda: False)
    assert choose(tmp_path) == CPU
    assert not list(tmp_path.iterdir())


def test_an_engine_that_cannot_be_measured_is_not_taken(
    tmp_path: Path, rounds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def open_engine(provider: str) -> Fixed:
        if provider == OPENVINO:
            raise RuntimeError("no such\noperator")
        return Fixed()

    chosen = faster_engine(b"m", open_engine, size=SIZE, precision="fp32", callers=1, cache=tmp_path)
    assert chosen == CPU
    assert "OpenVINO is not used, as it could not be measured: no such operator" in caplog.text


def test_engines_disagree_by_values_by_first_labels_and_by_what_is_no_number() -> None:
    assert disagreement_of(Fixed(0.9), Fixed(0.9), SIZE, 1e-3) is None
    assert "off by 0.1 in probability" in str(disagreement_of(Fixed(0.9), Fixed(0.8), SIZE, 1e-3))
    assert "first label" in str(disagreement_of(Fixed(0.6), Fixed(0.4), SIZE, 0.5))
    assert "off by nan" in str(disagreement_of(Fixed(0.9), Fixed(float("nan")), SIZE, 0.5))


def test_sample_images_are_always_the_same_and_begin_with_the_golden_one() -> None:
    images = sample_images(*SIZE)
    assert (images.shape, images.dtype) == ((16, *SIZE, 3), np.uint8)
    assert np.array_equal(images, sample_images(*SIZE))
    assert len(np.unique(images.reshape(16, -1), axis=0)) == 16


def test_every_caller_counts_in_the_measured_rate() -> None:
    seconds = engine_choice._seconds_an_image(Fixed(), SIZE, 8, 2)
    assert 0 < seconds < 1
