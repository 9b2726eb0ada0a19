"""The models in models/: as good as promised, for somebody who has the file, its card, and nothing else from here."""

import functools
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.app import create_app
from service.model_files.default_model import SHIPPED_MODEL
from service.settings import Settings
from tests.service.conftest import client_of

ROOT = Path(__file__).parents[2]
CIFAR10 = {"cifar10-resnet56": 0.934, "cifar10-resnet20": 0.918}  # top-1 at least
LARGE_CIFAR10 = "cifar10-resnet56"
RUNS = {name: name for name in CIFAR10} | {SHIPPED_MODEL: SHIPPED_MODEL.removesuffix("-int8")}  # model → its run
HELD_OUT = {"cifar10": 2_000, "everyday": 4_000}  # images
MODEL = ROOT / "models" / SHIPPED_MODEL / "1" / "model.onnx"
TEST_SET = ROOT.parent / "shared" / "data" / "cifar10-test.tar"
IMAGE = ROOT / "tests" / "fixtures" / "images" / "jpeg_420.jpg"


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio alone."""
    return "asyncio"


def session_and_card(name: str = LARGE_CIFAR10) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    model = ROOT / "models" / name / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["model_card"])


@functools.cache
def images_and_labels() -> tuple[NDArray[np.uint8], list[str]]:
    """The CIFAR-10 test set, and each image's label."""
    pixels, names = [], []
    with tarfile.open(TEST_SET) as tar:
        for member in tar.getmembers():
            if member.isfile() and (file := tar.extractfile(member)) is not None:
                pixels.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
                names.append(member.name.split("/")[-2])
    return np.stack(pixels), names


needs_the_test_set = pytest.mark.skipif(not TEST_SET.exists(), reason="needs the CIFAR-10 test set beside the checkout")


@pytest.mark.shared
@needs_the_test_set
@pytest.mark.parametrize(("name", "promised"), CIFAR10.items())
def test_as_much_of_the_test_set_as_promised_gets_the_right_label(name: str, promised: float) -> None:
    session, card = session_and_card(name)
    pixels, names = images_and_labels()
    best = [session.run(["top_indices"], {"images": pixels[i : i + 100]})[0] for i in range(0, 10_000, 100)]
    labels = np.array([card["labels"].index(name) for name in names])
    top1 = float((np.concatenate(best)[:, 0] == labels).mean())
    assert len(labels) == 10_000
    assert top1 >= promised
    assert top1 == pytest.approx(card["accuracy"]["top1"], abs=5e-4)
    assert card["accuracy"]["images"] == 10_000


def pairs_of_images(count: int) -> list[tuple[NDArray[np.uint8], str, str]]:
    """Images of two photos, one squeezed into each half, of two classes that the network knows when it sees them."""
    session, card = session_and_card()
    pixels, names = images_and_labels()
    draw, pairs = np.random.default_rng(20), []
    while len(pairs) < count:
        left, right = draw.integers(0, len(names), 2)
        halves = [Image.fromarray(pixels[i]).resize((16, 32), Image.Resampling.BICUBIC) for i in (left, right)]
        both = np.concatenate([np.asarray(half) for half in halves], axis=1)
        best = session.run(["top_indices"], {"images": both[None]})[0][0]
        if names[left] != names[right] and {names[left], names[right]} <= {card["labels"][i] for i in best}:
            pairs.append((both, names[left], names[right]))
    return pairs


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def heat_on_own_half(values: NDArray[np.float32], *, left: bool) -> float:
    """The share of a map's heat that lies on one half of the image."""
    heat, middle = values.clip(0), values.shape[1] // 2
    return float((heat[:, :middle] if left else heat[:, middle:]).sum() / heat.sum())


@pytest.mark.anyio
@pytest.mark.shared
@needs_the_test_set
async def test_the_maps_of_two_photos_in_one_image_lie_on_their_own_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shares = []
    app = create_app(Settings(models=ROOT / "models", engine_threads=1))
    async with client_of(app) as client:
        for pixels, left, right in pairs_of_images(200):
            found = (await client.post(f"/explain?model={LARGE_CIFAR10}", content=as_png(pixels))).json()["predictions"]
            maps = {best["label"]: np.array(best["map"], np.float32) for best in found}
            shares.append((heat_on_own_half(maps[left], left=True), heat_on_own_half(maps[right], left=False)))
            assert_maps_are_weights_times_features(pixels, found)
    assert (np.array(shares) > 0.5).mean() >= 0.88
    assert (np.array(shares) > 0.5).all(axis=1).mean() >= 0.75


def assert_maps_are_weights_times_features(pixels: NDArray[np.uint8], found: list[dict[str, Any]]) -> None:
    """The definition of a class-activation map (Zhou et al. 2016), from the file's own features and last layer."""
    session, weights = session_with_features()
    features = session.run(None, {"images": pixels[None]})[-1][0]
    for best in found:
        reference = np.tensordot(weights[best["index"]], features, axes=1)
        np.testing.assert_allclose(np.array(best["map"]), reference, rtol=1e-4, atol=1e-4)


@functools.cache
def session_with_features() -> tuple[onnxruntime.InferenceSession, NDArray[np.float32]]:
    """The shipped network with what its pooling averages as one more output, and the weights of its last layer."""
    model = onnx.load(ROOT / "models" / LARGE_CIFAR10 / "1" / "model.onnx")
    pooling = next(node for node in model.graph.node if "embedding" in node.output)
    last = next(node for node in model.graph.node if node.op_type == "Gemm")
    model.graph.output.append(onnx.ValueInfoProto(name=pooling.input[0]))
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == last.input[1])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session, onnx.numpy_helper.to_array(weights)


@pytest.mark.parametrize("name", RUNS)
def test_the_card_says_where_the_model_comes_from(name: str) -> None:
    _, card = session_and_card(name)
    folder = ROOT / "training" / "results" / RUNS[name]
    run = json.loads((folder / "run.json").read_text())
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    family, held_out = next((family, count) for family, count in HELD_OUT.items() if name.startswith(family))
    assert card["labels"] == run["labels"] and f"{family}-{card['network']}" == RUNS[name]
    assert card["network"] == run["network"] and card["provenance"]["checkpoint_sha256"] == weights
    assert card["provenance"]["recipe"] == run["recipe"]["name"] and card["provenance"]["seed"] == run["seed"]
    assert len(run["held_out"]) == held_out and card["calibration"]["images"] == held_out
    if card["precision"] == "fp32":
        assert card["parity"]["agreeing_images"] == card["parity"]["images"]
    else:
        assert card["precision_loss"]["top1_loss"] <= 0.5


def test_the_default_model_knows_everyday_things_and_says_when_it_is_not_sure() -> None:
    _, card = session_and_card(SHIPPED_MODEL)
    assert len(card["labels"]) == 200
    assert {"school bus", "pizza", "teapot", "lemon", "golden retriever"} <= set(card["labels"])
    assert card["accuracy"]["images"] == 10_000
    assert card["calibration"]["expected_calibration_error"] <= 0.03
    confidence = card["confidence"]
    assert confidence["known_images"] == 4_000 and confidence["compared_unknown_images"] >= 500
    low, high = confidence["auroc_interval"]
    assert 0.5 < low <= confidence["auroc"] <= high


def test_the_documented_script_classifies_as_the_command_does(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "model-file.md").read_text(), re.DOTALL)
    script = tmp_path / "script.py"
    script.write_text(next(block for block in blocks if "InferenceSession" in block))
    by_script = subprocess.run(
        [sys.executable, str(script), str(MODEL), str(IMAGE)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    command = [str(Path(sys.executable).parent / "classify"), "--models", str(ROOT / "models"), "--format", "json"]
    by_command = subprocess.run([*command, str(IMAGE)], capture_output=True, text=True, check=True)
    predictions = json.loads(by_command.stdout)["predictions"]
    lines = [line.split("  ") for line in by_script.stdout.splitlines()]
    assert [label for _, label in lines] == [best["label"] for best in predictions]
    by_pillow = [float(probability) for probability, _ in lines]  # the service may resize with cykooz-resizer
    assert by_pillow == pytest.approx([best["probability"] for best in predictions], abs=0.005)
