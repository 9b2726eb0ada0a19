"""From fp32 to fp16 and int8: what passes the gate, what does not, and what the card will say of it."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import ExportError
from export.graph.to_onnx import deployable
from export.options import Precision, PrecisionOptions, Target
from export.reduced_precision import Fp32, Reduced, reduce_precision
from export.sources.sample_images import sample_pixels
from export.verification.calibration_images import CalibrationImages, find_images
from export.verification.evaluation import answers_of, engine_over
from export.verification.labelled_images import Evidence, LabelledImages
from service.images.preprocessing import Pixels
from tests.export.conftest import TEMPERATURE, Converted

INT8 = PrecisionOptions(Precision.INT8)


def fp32_of(tiny: Converted, *, trained: bool) -> Fp32:
    """Return the tiny network, which the gate takes for a trained one where it should."""
    source = dataclasses.replace(tiny.source, checkpoint_sha256="0" * 64 if trained else None)
    return Fp32(source, deployable(source.network), tiny.graph, engine_over(tiny.content), TEMPERATURE)


def images_of(pixels: Pixels) -> CalibrationImages:
    return CalibrationImages(pixels, pixels[:1], "made up")


def black(tiny: Converted) -> CalibrationImages:
    return images_of(np.zeros_like(sample_pixels(tiny.source.preprocessing)))


def good(tiny: Converted) -> CalibrationImages:
    return images_of(sample_pixels(tiny.source.preprocessing))


def labelled(fp32: Fp32) -> Evidence:
    """Images that fp32 gets all right."""
    pixels = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3), dtype=np.uint8)
    return Evidence(test=LabelledImages(pixels, answers_of(fp32.engine, pixels).best[:, 0], "noise"))


def reduced(
    fp32: Fp32, images: CalibrationImages | None, options: PrecisionOptions = INT8, *, evidence: Evidence | None = None
) -> tuple[Reduced, str]:
    said: list[str] = []
    return reduce_precision(fp32, options, evidence or Evidence(), images, said.append), "\n".join(said)


@pytest.mark.parametrize("with_labels", [pytest.param(True, marks=pytest.mark.long), False])
def test_a_calibration_on_black_images_is_refused_by_how_much(tiny: Converted, with_labels: bool) -> None:
    fp32 = fp32_of(tiny, trained=True)
    expected = r"loses [0-9.]+ points of top-1 on 150" if with_labels else r"keeps the label of fp32 for [0-9.]+% of 18"
    with pytest.raises(ExportError, match=rf"^int8 {expected}.*nothing was written. Give better images with --cali"):
        reduced(fp32, black(tiny), evidence=labelled(fp32) if with_labels else None)


def test_random_weights_are_reported_on_and_pass(tiny: Converted) -> None:
    result, said = reduced(fp32_of(tiny, trained=False), black(tiny))
    assert result.loss.agreement < 0.98
    assert "accepted, because the weights are random" in said
    assert result.quantisation is not None and result.quantisation.float_layers == ()
    assert result.loss.dataset == "calibration and sample images"


def test_the_card_names_only_images_that_there_were(tiny: Converted) -> None:
    result, _ = reduced(fp32_of(tiny, trained=False), None, PrecisionOptions(Precision.FP16))
    assert (result.loss.dataset, result.loss.images) == ("sample images", 17)


@pytest.mark.long
def test_a_limit_of_100_switches_the_gate_off(tiny: Converted) -> None:
    result, _ = reduced(fp32_of(tiny, trained=True), black(tiny), PrecisionOptions(Precision.INT8, max_loss=100))
    assert result.loss.agreement < 0.98


@pytest.mark.long
def test_outer_layers_stay_in_float_only_if_the_gate_needs_it(tiny: Converted) -> None:
    fp32 = fp32_of(tiny, trained=True)
    free, _ = reduced(fp32, good(tiny), PrecisionOptions(Precision.INT8, max_loss=99), evidence=labelled(fp32))
    assert free.quantisation is not None and free.quantisation.float_layers == ()
    said: list[str] = []
    with pytest.raises(ExportError, match=r"int8 loses"):
        reduce_precision(fp32, PrecisionOptions(Precision.INT8, max_loss=0.0), labelled(fp32), black(tiny), said.append)
    assert "keeping the first and last layer in float" in said[-1]


@pytest.mark.long
def test_the_ranges_come_from_the_method_that_measured_best(tiny: Converted) -> None:
    result, said = reduced(fp32_of(tiny, trained=False), good(tiny))
    assert result.quantisation is not None
    assert (result.quantisation.target, result.quantisation.images) == ("x86", 17)
    assert f"ranges by {result.quantisation.method};" in said
    found = {name: float(figure) for name, figure in re.findall(r"(entropy|percentile|min-max) ([0-9.e-]+)", said)}
    assert len(found) == 3 and found[result.quantisation.method] == min(found.values())
    assert result.quantisation.divergence == pytest.approx(min(found.values()), rel=0.05)
    assert f"on {result.quantisation.choosing_images} images" in said
    assert result.loss.agreement >= 0.7


@pytest.mark.long
def test_the_target_is_the_requested_precision(tiny: Converted) -> None:
    result, _ = reduced(fp32_of(tiny, trained=False), good(tiny), PrecisionOptions(Precision.INT8, Target.ARM))
    assert result.quantisation is not None and result.quantisation.target == "arm"


@pytest.mark.long
def test_fp16_passes_its_gate_and_is_judged_with_labels_where_there_are_some(tiny: Converted) -> None:
    fp32 = fp32_of(tiny, trained=True)
    result, said = reduced(fp32, None, PrecisionOptions(Precision.FP16, max_loss=1.5), evidence=labelled(fp32))
    assert result.quantisation is None and said == ""
    assert result.loss.top1_loss is not None and result.loss.top1_loss <= 1.5
    assert (result.loss.images, result.loss.provider) == (150, "CPUExecutionProvider")


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (50, 40), (index, 100, 200)).save(folder / f"{index:04}.png")
    return folder


def test_calibration_images_come_from_a_folder_of_any_layout_two_thirds_to_measure(
    tiny: Converted, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "mine", 7)
    write_images(folder / "deeper", 2)
    (folder / "notes.txt").write_text("no image")
    said: list[str] = []
    found = find_images(tiny.source, folder, said.append)
    assert (found.measured.shape, found.judging.shape) == ((6, 32, 32, 3), (3, 32, 32, 3))
    assert found.name == "mine"
    assert "1 files of" in said[0] and "left out" in said[0]


@pytest.mark.long
def test_of_many_images_some_hundreds_from_all_over_are_taken(tiny: Converted, tmp_path: Path) -> None:
    found = find_images(tiny.source, write_images(tmp_path / "many", 400), print)
    assert len(found.measured) + len(found.judging) == 384


def test_without_any_images_random_weights_take_the_samples_and_others_are_told_what_to_give(
    tiny: Converted,
) -> None:
    assert len(find_images(tiny.source, None, print).measured) == 17
    with pytest.raises(ExportError, match=r"give a few hundred with --calibration FOLDER"):
        find_images(fp32_of(tiny, trained=True).source, None, print)


def test_few_images_are_reported(tiny: Converted, tmp_path: Path) -> None:
    lines: list[str] = []
    find_images(tiny.source, write_images(tmp_path / "few", 9), lines.append)
    assert any("9 images, which are few" in line for line in lines)
    lines.clear()
    find_images(tiny.source, write_images(tmp_path / "enough", 100), lines.append)
    assert not lines


def test_what_is_no_folder_of_images_is_one_line(tiny: Converted, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tar")
    (tmp_path / "empty").mkdir()
    for name, expected in (
        ("absent", "neither a folder nor a tar"),
        ("text", "neither a folder nor a tar"),
        ("empty", "holds no image"),
    ):
        with pytest.raises(ExportError, match=expected):
            find_images(tiny.source, tmp_path / name, print)
