"""POST /v1/embeddings and GET /v1/models over ASGI."""

import base64

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from tests.service.conftest import image

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"
PURPLE = image((200, 0, 100), "PNG")


def data_url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def assert_error(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["code"], error["param"]) == (code, None)
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")


async def test_an_image_becomes_an_embedding_of_length_one(client: httpx.AsyncClient) -> None:
    answer = (await client.post(PATH, json={"model": "tiny", "input": data_url(PURPLE)})).json()
    embedded = (await client.post("/embed?normalize=true", content=PURPLE)).json()["embedding"]
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": embedded}],
        "model": "tiny",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


async def test_a_list_is_answered_in_order_in_both_formats(client: httpx.AsyncClient, red: bytes) -> None:
    images = [data_url(PURPLE), data_url(red, "jpeg"), base64.b64encode(PURPLE).decode()]
    listed, packed = [
        (await client.post(PATH, json={"input": images, "encoding_format": encoding})).json()["data"]
        for encoding in ("float", "base64")
    ]
    assert [entry["index"] for entry in listed] == [0, 1, 2]
    assert listed[0]["embedding"] == listed[2]["embedding"] == pytest.approx(np.array([2, 0, 1]) / 5**0.5)
    for numbers, text in zip(listed, packed, strict=True):
        unpacked = np.frombuffer(base64.b64decode(text["embedding"]), "<f4")
        assert unpacked.tolist() == np.array(numbers["embedding"], "<f4").tolist()


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"input": "a red car"}, 400, "bad_base64"),
        ({"input": "https://example.org/a.jpg"}, 400, "bad_base64"),
        ({"input": []}, 400, "bad_json"),
        ({"input": [1, 2, 3]}, 400, "bad_json"),
        ({"input": list(range(5000))}, 400, "bad_json"),
        ({"input": [[1], [2]]}, 400, "bad_base64"),
        ({}, 400, "bad_base64"),
        ({"input": ["aGk="] * 65}, 400, "too_many_images"),
        ({"input": "aGk="}, 415, "not_an_image"),
        ({"input": data_url(PURPLE), "model": 3}, 400, "bad_json"),
        ({"input": data_url(PURPLE), "model": "nobody"}, 404, "model_not_found"),
        ({"input": data_url(PURPLE), "encoding_format": "int8"}, 400, "bad_json"),
        ({"input": data_url(PURPLE), "dimensions": 2}, 400, "bad_json"),
        ({"input": data_url(PURPLE), "dimensions": "3"}, 400, "bad_json"),
        ([], 400, "bad_json"),
    ],
)
async def test_a_request_that_does_not_fit_is_refused(
    client: httpx.AsyncClient, document: object, status: int, code: str
) -> None:
    assert_error(await client.post(PATH, json=document), status, code)


async def test_the_dimensions_of_the_model_are_accepted(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"input": data_url(PURPLE), "dimensions": 3, "user": "somebody"})
    assert answer.status_code == 200


async def test_one_bad_image_fails_the_request_as_in_openai_s_api(client: httpx.AsyncClient) -> None:
    assert_error(await client.post(PATH, json={"input": [data_url(PURPLE), data_url(b"text")]}), 415, "not_an_image")


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["tiny"]
    assert (await client.get("/v1/models/tiny")).json() == listed["data"][0]
    assert listed["data"][0]["created"] > 0
    assert_error(await client.get("/v1/models/nobody"), 404, "model_not_found")


async def test_a_server_that_starts_says_so(app: FastAPI, client: httpx.AsyncClient) -> None:
    app.state.components.readiness._state = "starting"
    for answer in (await client.get("/v1/models"), await client.post(PATH, json={"input": data_url(PURPLE)})):
        assert_error(answer, 503, "not_ready")
        assert int(answer.headers["retry-after"]) >= 1
