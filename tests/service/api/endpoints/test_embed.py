"""POST /embed over ASGI: the network's own features, in two formats."""

import httpx
import numpy as np
import pytest

from tests.service.api.endpoints.test_classify import assert_problem
from tests.service.conftest import image

pytestmark = pytest.mark.anyio

BINARY = {"accept": "application/octet-stream"}
PURPLE = image((200, 0, 100), "PNG")


async def test_an_embedding_is_what_the_model_pools(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/embed", content=PURPLE)).json()
    assert list(answer) == ["model", "embedding", "normalized", "image", "timings_ms"]
    assert answer["embedding"] == pytest.approx([200 / 255, 0, 100 / 255])
    assert answer["normalized"] is False


async def test_both_formats_hold_the_same_numbers(client: httpx.AsyncClient) -> None:
    for query in ("", "?normalize=true"):
        listed = (await client.post("/embed" + query, files={"image": PURPLE})).json()["embedding"]
        answer = await client.post("/embed" + query, content=PURPLE, headers=BINARY)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert np.frombuffer(answer.content, "<f4").tolist() == np.array(listed, "<f4").tolist()


async def test_on_request_its_length_is_one(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/embed?normalize=true", content=PURPLE)).json()
    assert answer["normalized"] is True
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1)
    assert answer["embedding"] == pytest.approx(np.array([2, 0, 1]) / 5**0.5)


async def test_an_embedding_of_nothing_but_zeros_stays_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/embed?normalize=1", content=image((0, 0, 0), "PNG"))
    assert answer.json()["embedding"] == [0, 0, 0]


async def test_what_cannot_be_answered_is_refused(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/embed?normalize=maybe", content=PURPLE), 400, "bad_normalize")
    assert_problem(await client.post("/embed", content=PURPLE, headers={"accept": "image/png"}), 406, "not_acceptable")
    assert_problem(await client.post("/embed?model=x", content=PURPLE), 404, "model_not_found")
