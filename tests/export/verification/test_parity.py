"""A file that answers otherwise than the network gets no name."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.errors import ExportError
from export.graph.to_onnx import serialise
from export.sources.sample_images import sample_pixels
from export.verification.parity import check_parity
from service.engine.engine import Engine
from tests.export.conftest import TEMPERATURE, Converted


def engine_with(tiny: Converted, name: str, change: float) -> Engine:
    """Return an engine over a model in which one weight differs."""
    tampered = onnx.ModelProto()
    tampered.CopyFrom(tiny.graph)
    for tensor in tampered.graph.initializer:
        if tensor.name == name:
            values = numpy_helper.to_array(tensor).copy()
            values.flat[0] += change
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return Engine(serialise(tampered), providers="cpu")
    raise AssertionError(f"no weight is called {name}")


def check(tiny: Converted, engine: Engine, temperature: float = TEMPERATURE) -> object:
    source = tiny.source
    return check_parity(engine, source.network, source.preprocessing, temperature, sample_pixels(source.preprocessing))


def test_a_faithful_file_passes_and_the_figures_are_reported(tiny: Converted) -> None:
    parity = check_parity(
        Engine(tiny.content, providers="cpu"),
        tiny.source.network,
        tiny.source.preprocessing,
        TEMPERATURE,
        sample_pixels(tiny.source.preprocessing),
    )
    assert parity.batch_sizes == (1, 2, 3, 8, 16)
    assert parity.images == parity.agreeing_images == 17
    assert 0 < parity.largest_probability_difference <= 1e-5


@pytest.mark.parametrize("change", [0.001, 10.0, float("nan"), float("inf")])
def test_a_changed_weight_is_noticed(tiny: Converted, change: float) -> None:
    with pytest.raises(ExportError, match=r"does not answer as the network does.*nothing was written"):
        check(tiny, engine_with(tiny, "network.fc.bias", change))


def test_another_temperature_is_noticed(tiny: Converted) -> None:
    with pytest.raises(ExportError, match="0 of 17 images get another label"):
        check(tiny, Engine(tiny.content, providers="cpu"), temperature=TEMPERATURE * 1.01)


def test_another_label_is_refused_even_if_the_probabilities_are_close(tiny: Converted) -> None:
    class Swapped:
        """An engine that names the second best class first."""

        def __init__(self) -> None:
            self.engine = Engine(tiny.content, providers="cpu")

        def run(self, images: object) -> list[object]:
            probabilities, best = self.engine.run(images)  # type: ignore[arg-type]
            return [probabilities, np.roll(best, 1, axis=1)]

    with pytest.raises(ExportError, match="17 of 17 images get another label"):
        check(tiny, Swapped())  # type: ignore[arg-type]
