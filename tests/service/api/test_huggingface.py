"""POST /hf/{model} over ASGI: the two forms of Hugging Face's inference API, and its errors."""

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import client_of
from tests.support.model_files.tiny_model import LABELS

pytestmark = pytest.mark.anyio

PATH = "/hf/tiny"


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def assert_error(answer: httpx.Response, status: int, words: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


async def test_an_image_as_the_body_is_answered_with_labels_and_scores(client: httpx.AsyncClient, red: bytes) -> None:
    answer = (await client.post(PATH, content=red, headers={"content-type": "image/jpeg"})).json()
    classified = (await client.post("/classify", content=red)).json()["predictions"]
    assert answer == [{"label": best["label"], "score": best["probability"]} for best in classified]
    assert answer[0]["label"] == "red"


async def test_json_and_forms_have_the_same_answer(client: httpx.AsyncClient, red: bytes) -> None:
    whole = (await client.post(PATH, content=red)).json()
    for text in (as_text(red), f"data:image/jpeg;base64,{as_text(red)}"):
        assert (await client.post(PATH, json={"inputs": text})).json() == whole
    assert (await client.post(PATH, files={"file": red})).json() == whole
    assert (await client.post(f"{PATH}:1", content=red)).json() == whole


@pytest.mark.parametrize("parameters", [{"top_k": 2}, {"top_k": 2, "function_to_apply": "softmax", "other": None}])
async def test_top_k_chooses_how_many(client: httpx.AsyncClient, red: bytes, parameters: dict[str, object]) -> None:
    answer = await client.post(PATH, json={"inputs": as_text(red), "parameters": parameters})
    assert len(answer.json()) == 2
    assert len((await client.post(f"{PATH}?top_k=1", content=red)).json()) == 1
    assert len((await client.post(f"{PATH}?top_k=1000", content=red)).json()) == len(LABELS)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"inputs": "?"}, "`inputs` must be an image"),
        ({}, "`inputs` must be an image"),
        ([], "send an image"),
        ({"inputs": "", "parameters": 3}, "must be an object"),
        ({"inputs": ""}, "The request has no image"),
        ({"inputs": "aGk=", "parameters": {"top_k": 0}}, "top_k must be"),
        ({"inputs": "aGk=", "parameters": {"top_k": True}}, "top_k must be"),
        ({"inputs": "aGk=", "parameters": {"topk": 1}}, "did you mean `top_k`"),
        ({"inputs": "aGk=", "parameters": {"function_to_apply": "sigmoid"}}, "softmax"),
        ({"inputs": "aGk=", "parameters": {"function_to_apply": []}}, "softmax"),
    ],
)
async def test_json_that_does_not_fit_is_refused(client: httpx.AsyncClient, document: object, words: str) -> None:
    assert_error(await client.post(PATH, json=document), 400, words)


async def test_failures_are_in_the_words_of_hugging_face(app: FastAPI, client: httpx.AsyncClient, red: bytes) -> None:
    assert_error(await client.post("/hf/nobody", content=red), 404, "choose one of: tiny")
    assert_error(await client.post(PATH, content=b"text"), 415, "this is text")
    assert_error(await client.post(PATH, content=red[:100]), 422, "no image data")
    assert_error(await client.post(PATH, json={"inputs": as_text(bytes(100_001))}), 413, "100,000 bytes")
    assert_error(await client.post(PATH, content=bytes(300_000)), 413, "100,000 bytes")
    assert_error(await client.get(PATH), 405, "only POST")
    app.state.components.readiness._state = "starting"
    answer = await client.post(PATH, content=red)
    assert_error(answer, 503, "loading")
    assert int(answer.headers["retry-after"]) >= 1


async def test_answers_are_counted_by_the_template_of_their_path(
    app: FastAPI, client: httpx.AsyncClient, red: bytes
) -> None:
    for name in ("tiny", "a", "b"):
        await client.post(f"/hf/{name}", content=red)
    counted = app.state.components.metrics.snapshot()["counters"]
    assert counted["resnet_requests\n/hf/{model}\nPOST\n200"] == [1]
    assert counted["resnet_requests\n/hf/{model}\nPOST\n404"] == [2]


async def test_a_large_json_body_is_parsed_in_a_thread(models: Path) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (400, 400, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    assert len(content.getvalue()) > 256 * 1024
    app = create_app(Settings(models=models, engine_threads=1))
    async with client_of(app) as client:
        answer = (await client.post(PATH, json={"inputs": as_text(content.getvalue())})).json()
        assert answer == (await client.post(PATH, content=content.getvalue())).json()
    assert app.state.components.upload_memory.used_bytes == 0
