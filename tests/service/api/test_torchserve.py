"""POST /predictions and GET /ping over ASGI: what TorchServe's handler `image_classifier` answers."""

import json

import httpx
import pytest
from fastapi import FastAPI

pytestmark = pytest.mark.anyio

PATH = "/predictions/tiny"


def assert_error(answer: httpx.Response, status: int, kind: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    document = answer.json()
    assert list(document) == ["code", "type", "message"]
    assert (document["code"], document["type"]) == (status, kind)


async def test_an_image_is_answered_with_an_object_of_labels(client: httpx.AsyncClient, red: bytes) -> None:
    answer = json.loads((await client.post(PATH, content=red)).content)
    classified = (await client.post("/classify", content=red)).json()["predictions"]
    assert list(answer.items()) == [(best["label"], best["probability"]) for best in classified]


async def test_each_way_to_send_an_image_has_the_same_answer(client: httpx.AsyncClient, red: bytes) -> None:
    whole = (await client.post(PATH, content=red)).json()
    assert (await client.put(PATH, content=red)).json() == whole  # as curl -T does
    for field in ("data", "body", "file"):
        assert (await client.post(PATH, files={field: red})).json() == whole
    for version in ("1", "1.0"):
        assert (await client.post(f"{PATH}/{version}", content=red)).json() == whole
    assert len((await client.post(f"{PATH}?top_k=2", content=red)).json()) == 2


async def test_ping_follows_readiness(app: FastAPI, client: httpx.AsyncClient) -> None:
    assert (await client.get("/ping")).json() == {"status": "Healthy"}
    app.state.components.readiness.start_draining()
    assert_error(await client.get("/ping"), 503, "ServiceUnavailableException")


async def test_failures_are_in_the_words_of_torchserve(client: httpx.AsyncClient, red: bytes) -> None:
    assert_error(await client.post("/predictions/nobody", content=red), 404, "ModelNotFoundException")
    assert_error(await client.post(f"{PATH}/2.0", content=red), 404, "ModelNotFoundException")
    assert_error(await client.post(PATH, content=b"text"), 415, "BadRequestException")
    assert_error(await client.put(PATH, content=red[:100]), 422, "BadRequestException")
    assert_error(await client.put(PATH, content=bytes(300_000)), 413, "RequestEntityTooLargeException")
    assert_error(await client.get(PATH), 405, "MethodNotAllowedException")


async def test_only_the_routes_of_torchserve_accept_put(client: httpx.AsyncClient, red: bytes) -> None:
    for path in ("/classify", "/hf/tiny", "/v1/embeddings"):
        answer = await client.put(path, content=red)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_put_is_admitted_and_counted_like_post(app: FastAPI, client: httpx.AsyncClient, red: bytes) -> None:
    await client.put(PATH, content=red)
    counted = app.state.components.metrics.snapshot()["counters"]
    assert counted["resnet_requests\n/predictions/{model}\nPUT\n200"] == [1]
    answer = await client.put(PATH, content=red, headers={"x-request-timeout-ms": "soon"})
    assert_error(answer, 400, "BadRequestException")
