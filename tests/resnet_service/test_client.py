"""`Client` and `AsyncClient`: against a real server, and against one that fails on purpose."""

import hashlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from resnet_service import AsyncClient, Classification, Client, Model, ResnetError
from tests.service.conftest import image
from tests.support.servers.served import Served, serving

KEY = "key-of-a-test"
ANSWER = {
    "model": {"name": "tiny", "version": "1", "sha256": "0", "provider": "CPU", "precision": "fp32"},
    "predictions": [{"label": "red", "index": 1, "probability": 0.9}],
    "confident": None,
    "image": {"format": "JPEG", "width": 1, "height": 1},
    "timings_ms": {"decode": 1.0, "queue": 0.0, "inference": 1.0},
}


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"test {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    with serving(models, "--processes", 1, "--api-keys-file", keys) as served:
        yield served


@pytest.fixture
def address(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}"


def test_a_server_answers_as_a_model_does(address: str, models: Path, red: bytes) -> None:
    model = Model.load(models / "tiny")
    with Client(address, api_key=f"{KEY}\n") as client:
        assert client.classify(red, top_k=2).predictions == model.classify(red, top_k=2).predictions
        assert client.classify(np.full((9, 9, 3), (0, 255, 0), np.uint8), model="tiny:1").label == "green"
        served, own = client.explain(red, label="red"), model.explain(red, label="red")
        assert served.predictions[0].map == pytest.approx(own.predictions[0].map)
        assert (served.predictions[0].png, served.crop) == (own.predictions[0].png, own.crop)
        assert client.overlay(red, label="red") == model.overlay(red, label="red")
        assert client.overlay(red).startswith(b"\x89PNG")
        embedded = client.embed(red, normalize=True)
        assert embedded.values == pytest.approx(model.embed(red, normalize=True).values)
        listed = client.models()
        assert [(entry.name, entry.version, entry.state, entry.is_default) for entry in listed] == [
            ("tiny", "1", "READY", True)
        ]
        assert listed[0].labels == model.labels


def test_many_images_are_answered_in_order_in_requests_of_64(address: str, served: Served, tmp_path: Path) -> None:
    before = served.sample("resnet_pictures_total")
    images: list[Any] = [image((255, 0, 0)) if number % 2 else image((0, 0, 255)) for number in range(70)]
    images[3], images[69] = b"text", tmp_path / "none.jpg"
    with Client(address, api_key=KEY) as client:
        answers = client.classify_many(images, top_k=1)
        assert client.classify_many([tmp_path / "none.jpg"])[0].code == "no_file"  # type: ignore[union-attr]
    labels = [answer.label if isinstance(answer, Classification) else answer.code for answer in answers]
    expected = ["red" if number % 2 else "blue" for number in range(70)]
    expected[3], expected[69] = "not_an_image", "no_file"
    assert labels == expected
    assert served.sample("resnet_pictures_total") - before == 68


@pytest.mark.anyio
async def test_the_client_for_asyncio_has_the_same_answers(address: str, red: bytes) -> None:
    async with AsyncClient(address, api_key=KEY) as client:
        with Client(address, api_key=KEY) as other:
            assert (await client.classify(red)).predictions == other.classify(red).predictions
            assert (await client.embed(red)).values.tolist() == other.embed(red).values.tolist()
            assert (await client.explain(red)).crop == other.explain(red).crop
            assert await client.overlay(red) == other.overlay(red)
            assert (await client.models()) == other.models()
        answers = await client.classify_many([red, b"text"])
        assert isinstance(answers[0], Classification)
        assert isinstance(answers[1], ResnetError)
        with pytest.raises(ResnetError, match="this is text"):
            await client.classify(b"text")


def test_failures_have_the_code_of_the_server(address: str, red: bytes) -> None:
    with Client(address, api_key=KEY) as client:
        for content, model, code, status in (
            (b"text", None, "not_an_image", 415),
            (red, "nobody", "model_not_found", 404),
            (b"", None, "no_file", 400),
        ):
            with pytest.raises(ResnetError) as caught:
                client.classify(content, model=model)
            assert (caught.value.code, caught.value.status) == (code, status)
    with Client(address) as client, pytest.raises(ResnetError, match="API key") as caught:
        client.classify(red)
    assert caught.value.status == 401


class Answers:
    """A server that gives these answers in turn, and keeps the requests; it takes the place of the sleeping, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self._answers = list(answers)
        monkeypatch.setattr("time.sleep", self.waits.append)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options: Any) -> Client:
        client = Client("http://service", **options)
        client._http = httpx.Client(transport=httpx.MockTransport(self), base_url="http://service")
        return client


def busy(status: int = 503, **headers: str) -> httpx.Response:
    problem = {"type": "/docs", "title": "Overloaded", "status": status, "detail": "Too many.", "code": "overloaded"}
    return httpx.Response(status, json=problem, headers=headers)


def good() -> httpx.Response:
    return httpx.Response(200, json=ANSWER)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_tried_again_after_the_seconds_that_it_names(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    server = Answers(monkeypatch, busy(status, **{"retry-after": "4"}), busy(), httpx.ReadError("closed"), good())
    assert server.client().classify(b"image").label == "red"
    for wait_s, least_s in zip(server.waits, (4, 1, 0.25), strict=True):
        assert least_s <= wait_s <= 1.25 * least_s
    assert [request.content for request in server.requests] == [b"image"] * 4


def test_attempts_are_bounded_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Answers(monkeypatch, *(busy() for _ in range(3)))
    with pytest.raises(ResnetError, match="Too many") as caught:
        server.client(retries=2).classify(b"image")
    assert (len(server.requests), caught.value.code, caught.value.status) == (3, "overloaded", 503)


def test_attempts_are_bounded_by_the_deadline_that_the_server_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Answers(monkeypatch, busy(**{"retry-after": "9"}))
    with pytest.raises(ResnetError, match="Too many"):
        server.client(timeout_s=60).classify(b"image", timeout_s=5)
    assert 4000 < int(server.requests[0].headers["x-request-timeout-ms"]) <= 5000
    assert server.waits == []


def test_a_wait_is_at_most_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Answers(monkeypatch, busy(**{"retry-after": "3600"}), good())
    server.client().classify(b"image")
    assert 10 <= server.waits[0] <= 12.5


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.ReadTimeout("late"), "timeout"),
        (httpx.Response(200, text="<html>"), "bad_response"),
        (httpx.Response(502, text="bad gateway"), "bad_response"),
        (httpx.Response(404, json=["other"]), "bad_response"),
    ],
)
def test_other_failures_are_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception, code: str
) -> None:
    server = Answers(monkeypatch, answer)
    with pytest.raises(ResnetError) as caught:
        server.client().classify(b"image")
    assert caught.value.code == code
    assert server.waits == []


def test_a_server_that_is_not_there_is_named() -> None:
    with (
        Client("http://127.0.0.1:9", retries=0) as client,
        pytest.raises(ResnetError, match="cannot be reached") as caught,
    ):
        client.models()
    assert (caught.value.code, caught.value.status) == ("unreachable", None)


def test_connections_are_kept(address: str, served: Served, red: bytes) -> None:
    with Client(address, api_key=KEY) as client:
        for _ in range(5):
            client.classify(red)
        connections = client._http._transport._pool.connections  # type: ignore[attr-defined]
        assert len(connections) == 1


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://[", "a b"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="the address of a server"):
        Client(url)


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="API key"):
        Client("localhost:8000", api_key="two words")
    for options in ({"timeout_s": 0.0}, {"retries": -1}):
        with pytest.raises(ValueError, match="timeout_s must be above 0"):
            Client("localhost:8000", **options)  # type: ignore[arg-type]


def test_results_are_frozen_and_compare_by_value() -> None:
    answers = [json.loads(json.dumps(ANSWER)) for _ in range(2)]
    from resnet_service.results import classification_of

    first, second = map(classification_of, answers)
    assert first == second
    with pytest.raises(AttributeError):
        first.confident = True  # type: ignore[misc]


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_help_shows_the_parameters_and_the_result_of_a_method(client: type[Client | AsyncClient]) -> None:
    signature = inspect.signature(client.classify)
    assert list(signature.parameters) == ["self", "image", "top_k", "model", "timeout_s"]
    assert signature.return_annotation is Classification
    assert (client.classify.__doc__ or "").startswith("Return the best `top_k` labels of an image")
