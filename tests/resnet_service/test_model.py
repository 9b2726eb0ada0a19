"""`Model`: the answers of the server, in this process."""

import io
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import resnet_service
from resnet_service import Classification, Model, ResnetError
from tests.service.conftest import image
from tests.support.model_files.graph_files import graph_file, write_graph_file
from tests.support.model_files.tiny_model import LABELS, SIDE, write_tiny_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    return Model.load(models / "tiny")


def run(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_loads_neither_an_engine_nor_a_client() -> None:
    loaded = set(run("import sys, resnet_service; print(*sys.modules)"))
    assert not {"onnxruntime", "httpx", "fastapi", "starlette", "torch"} & loaded
    with_client = set(run("import sys; from resnet_service import AsyncClient, Client; print(*sys.modules)"))
    assert "httpx" in with_client
    assert not {"onnxruntime", "fastapi", "torch"} & with_client
    with_model = set(run("import sys; from resnet_service import Model; print(*sys.modules)"))
    assert not {"httpx", "fastapi", "starlette", "torch"} & with_model


def test_every_public_name_is_there() -> None:
    assert all(getattr(resnet_service, name).__doc__ for name in resnet_service.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        resnet_service.nothing  # noqa: B018
    assert (Path(resnet_service.__file__).parent / "py.typed").is_file()


def test_a_model_is_found_by_its_file_its_version_or_its_folder(tmp_path: Path, model_file: bytes) -> None:
    for version in ("2", "10"):
        path = write_tiny_model(tmp_path, version=version, content=model_file)
    other = tmp_path / "flat" / "any-name.onnx"
    other.parent.mkdir()
    shutil.copy(path, other)
    shutil.copy(path, other.with_name("model.onnx"))
    for given, name, version in (
        (path, "tiny", "10"),
        (path.parent, "tiny", "10"),
        (tmp_path / "tiny", "tiny", "10"),
        (tmp_path / "tiny" / "2", "tiny", "2"),
        (other, "any-name", "1"),
        (other.parent, "flat", "1"),
    ):
        info = Model.load(str(given), providers="cpu").info
        assert (info.name, info.version) == (name, version)


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"text")
    write_graph_file(tmp_path, "plain", graph_file())
    for path, words in (
        (tmp_path, "there is no model"),
        (broken, "broken.onnx"),
        (tmp_path / "plain", "no model card"),
    ):
        with pytest.raises(ResnetError, match=words) as caught:
            Model.load(path)
        assert caught.value.code == "no_model"
        assert "\n" not in str(caught.value)


def test_each_kind_of_image_has_the_same_labels(model: Model, tmp_path: Path) -> None:
    pixels = np.full((37, 50, 3), (255, 0, 0), np.uint8)
    content = image((255, 0, 0), "PNG")
    path = tmp_path / "red.png"
    path.write_bytes(content)
    answers = [
        model.classify(given)
        for given in (content, bytearray(content), path, str(path), pixels, Image.fromarray(pixels))
    ]
    assert {answer.predictions for answer in answers} == {answers[0].predictions}
    assert (answers[0].label, len(answers[0].predictions)) == ("red", 5)
    assert answers[0].probability == answers[0].predictions[0].probability > 0.9
    assert (answers[0].image.format, answers[0].image.width, answers[0].image.height) == ("PNG", 50, 37)
    assert answers[0].model == model.info


def test_gray_arrays_and_other_modes_of_pillow_are_accepted(model: Model) -> None:
    assert model.classify(np.full((9, 9), 255, np.uint8)).label == "white"
    for mode in ("1", "L", "P", "RGBA", "CMYK", "YCbCr"):
        assert model.classify(Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode)).label == "white"


def test_an_image_of_pillow_is_turned_as_its_file_is(model: Model) -> None:
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 37)).save(content, "JPEG", exif=exif)
    opened = Image.open(io.BytesIO(content.getvalue()))
    for given in (content.getvalue(), opened):
        shown = model.classify(given).image  # type: ignore[arg-type]
        assert (shown.width, shown.height) == (37, 50)


@pytest.mark.parametrize("given", [np.zeros((3, 3), np.float32), np.zeros((0, 3, 3), np.uint8), np.zeros(3, np.uint8)])
def test_an_array_that_is_no_image_is_refused(model: Model, given: Any) -> None:
    with pytest.raises(ValueError, match="an array must be uint8"):
        model.classify(given)


def test_what_is_no_image_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not int"):
        model.classify(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top_k must be from 1 to 1000, not 0"):
        model.classify(image((1, 2, 3)), top_k=0)
    for given, code, status in (
        (b"text", "not_an_image", 415),
        (b"", "no_file", 400),
        (image((1, 2, 3))[:100], "bad_image", 422),
        (tmp_path / "none.jpg", "no_file", None),
    ):
        with pytest.raises(ResnetError) as caught:
            model.classify(given)
        assert (caught.value.code, caught.value.status) == (code, status)


def test_of_many_images_each_has_its_answer_or_its_error(model: Model, tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images: list[Any] = [image(colours[number % 3]) for number in range(30)]
    images[7], images[20] = b"text", tmp_path / "none.jpg"
    answers = model.classify_many(iter(images), top_k=1)
    labels = [answer.label if isinstance(answer, Classification) else answer.code for answer in answers]
    expected = [("red", "green", "blue")[number % 3] for number in range(30)]
    expected[7], expected[20] = "not_an_image", "no_file"
    assert labels == expected
    assert model.classify_many([]) == []


def test_the_number_of_threads_can_be_limited(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[int] = set()
    classify_batch = Model._classify_batch

    def noting(self: Model, images: list[Any], top_k: int) -> list[Classification | ResnetError]:
        used.add(threading.get_ident())
        return classify_batch(self, images, top_k)

    monkeypatch.setattr(Model, "_classify_batch", noting)
    answers = model.classify_many([image((255, 0, 0))] * 80, threads=1)
    assert (len(answers), len(used)) == (80, 1)


def test_an_image_that_takes_long_to_decode_is_answered_among_others(model: Model) -> None:
    large = image((0, 0, 255), "PNG", (2000, 1500))
    answers = model.classify_many([image((255, 0, 0)), large, large[:2000]])
    assert [getattr(answer, "label", getattr(answer, "code", "")) for answer in answers] == ["red", "blue", "bad_image"]


def test_heat_maps_are_those_of_the_best_labels(model: Model) -> None:
    whole = model.explain(image((255, 0, 0)))
    assert (whole.predictions[0].label, len(whole.predictions)) == ("red", 5)
    assert whole.predictions[0].map.shape == (SIDE, SIDE)
    assert Image.open(io.BytesIO(whole.predictions[0].png)).size == (SIDE, SIDE)
    assert whole.crop == (5.0, 0.0, 45.0, 37.0)
    one = model.explain(image((255, 0, 0)), label="black")
    assert [best.label for best in one.predictions] == ["black"]
    assert model.explain(image((255, 0, 0)), index=LABELS.index("red")).predictions[0].label == "red"
    with pytest.raises(ResnetError, match="Only the best labels"):
        model.explain(image((255, 0, 0)), label="cat")


def test_an_embedding_has_length_one_on_request(model: Model) -> None:
    purple = image((200, 0, 100), "PNG")
    assert model.embed(purple).values == pytest.approx([200 / 255, 0, 100 / 255])
    normalized = model.embed(purple, normalize=True)
    assert normalized.normalized
    assert np.linalg.norm(normalized.values) == pytest.approx(1)


@pytest.mark.anyio
async def test_answers_are_those_of_the_server(model: Model, client: httpx.AsyncClient, red: bytes) -> None:
    served = (await client.post("/classify?top_k=3", content=red)).json()
    answer = model.classify(red, top_k=3)
    assert [best["probability"] for best in served["predictions"]] == [best.probability for best in answer.predictions]
    assert served["model"]["sha256"] == answer.model.sha256
    explained = (await client.post("/explain", content=red)).json()
    assert explained["crop"] == list(model.explain(red).crop)
