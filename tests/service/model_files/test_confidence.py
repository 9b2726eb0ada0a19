"""`confident` in answers: the score of an image against the threshold of the card."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.inference.classifier import load_classifier
from service.inference.model_checks import ModelCheckFailed
from service.model_files.card import ModelCard, read_card
from service.model_files.confidence import SCORES, Score, scores_of
from service.settings import Settings
from tests.service.cli.test_classify import run
from tests.service.conftest import client_of, image
from tests.support.model_files.tiny_model import SIDE, tiny_model, write_tiny_model

pytestmark = pytest.mark.anyio

RED, GREY = image((255, 0, 0), "PNG"), image((128, 128, 128), "PNG")
LOGITS = np.array([[2.0, 1.0, -1.0], [0.5, 0.25, 0.0]], np.float32)


def confidence(score: Score, threshold: float) -> dict[str, Any]:
    return {"confidence": {"score": score, "threshold": threshold, "known_images": 100}}


def app_over(folder: Path, content: bytes) -> FastAPI:
    write_tiny_model(folder, content=content)
    return create_app(Settings(models=folder))


def test_scores_follow_from_the_largest_probability_and_the_energy() -> None:
    energy = np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    largest = np.exp(LOGITS.max(axis=1) - energy[:, 0])
    np.testing.assert_allclose(scores_of("energy", largest, energy), energy[:, 0])
    np.testing.assert_allclose(scores_of("largest_logit", largest, energy), LOGITS.max(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(scores_of("largest_probability", largest, None), largest)
    with pytest.raises(ValueError, match="needs the model's output `energy`"):
        scores_of("energy", largest, None)


@pytest.mark.parametrize("score", SCORES)
async def test_an_image_below_the_threshold_is_answered_without_confidence(tmp_path: Path, score: Score) -> None:
    # A colour in the middle is equally near to all corners: its probabilities and logits are small.
    threshold = {"energy": 2.5, "largest_logit": 2.0, "largest_probability": 0.5}[score]
    app = app_over(tmp_path, tiny_model(card=confidence(score, threshold), energy=True))
    async with client_of(app) as client:
        red, grey = [(await client.post("/classify", content=content)).json() for content in (RED, GREY)]
        batch = (await client.post("/classify/batch", files=[("files", RED), ("files", GREY)])).json()
    assert red["predictions"][0]["label"] == "red"
    assert (red["confident"], grey["confident"]) == (True, False)
    assert [result["confident"] for result in batch["results"]] == [True, False]


async def test_a_model_without_a_threshold_answers_null(client: httpx.AsyncClient) -> None:
    assert (await client.post("/classify", content=RED)).json()["confident"] is None


@pytest.mark.parametrize("score", ["energy", "largest_logit"])
def test_a_graph_without_the_energy_that_its_card_needs_is_refused(score: Score) -> None:
    content = tiny_model(card=confidence(score, 1.0))
    with pytest.raises(ModelCheckFailed, match="needs the output `energy`, which the graph lacks"):
        load_classifier("tiny", "1", content, providers="cpu", max_batch=1)


def test_the_largest_probability_needs_no_output_of_its_own() -> None:
    content = tiny_model(card=confidence("largest_probability", 0.5))
    assert load_classifier("tiny", "1", content, providers="cpu", max_batch=1).classify_now(RED, top_k=1).confident


def test_a_card_without_confidence_is_written_as_before(model_file: bytes) -> None:
    card = load_classifier("tiny", "1", model_file, providers="cpu", max_batch=1).card
    assert "confidence" not in json.loads(card.model_dump_json())
    assert read_card({"model_card": card.model_dump_json()}) == card
    assert "confidence" in ModelCard.model_json_schema(mode="serialization")["properties"]


async def test_v2_answers_the_energy_only_to_a_request_that_names_it(tmp_path: Path) -> None:
    inputs = [{"name": "images", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3], "data": [255] * SIDE * SIDE * 3}]
    app = app_over(tmp_path, tiny_model(energy=True))
    async with client_of(app) as client:
        usual = (await client.post("/v2/models/tiny/infer", json={"inputs": inputs})).json()
        question = {"inputs": inputs, "outputs": [{"name": "energy"}]}
        named = (await client.post("/v2/models/tiny/infer", json=question)).json()
        metadata = (await client.get("/v2/models/tiny")).json()
    assert [output["name"] for output in usual["outputs"]] == [
        "probabilities",
        "embedding",
        "top_indices",
        "class_maps",
    ]
    (energy,) = named["outputs"]
    assert (energy["name"], energy["shape"]) == ("energy", [1, 1]) and np.isfinite(energy["data"][0])
    assert "energy" in [output["name"] for output in metadata["outputs"]]


def test_the_command_line_says_not_sure_and_draws_light_bars(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, content=tiny_model(card=confidence("energy", 2.5), energy=True))
    for name, content in (("red.png", RED), ("grey.png", GREY)):
        (tmp_path / name).write_bytes(content)
    red, grey = [run("--models", tmp_path, tmp_path / name).stdout for name in ("red.png", "grey.png")]
    assert red.splitlines()[0] == f"{tmp_path / 'red.png'}  (PNG, 50 x 37)" and "█" in red
    assert grey.splitlines()[0] == f"{tmp_path / 'grey.png'}  (PNG, 50 x 37)  not sure"
    assert "█" not in grey and "░" in grey
