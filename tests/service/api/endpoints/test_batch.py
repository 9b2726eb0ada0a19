"""POST /classify/batch over ASGI: a result or a problem for each image, in order, and room left for others."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.api.endpoints.batch import MOST_IMAGES
from service.app import create_app
from service.errors import Overloaded
from service.settings import Settings
from tests.service.api.endpoints.test_classify import assert_problem
from tests.service.conftest import client_of, image
from tests.support.model_files.tiny_model import COLOURS, LABELS

pytestmark = pytest.mark.anyio

IMAGES = [image((255 * r, 255 * g, 255 * b), "PNG") for r, g, b in COLOURS]
# What is sent → what comes back: a label, or the code of a problem.
MIXED = [
    *zip(IMAGES, LABELS, strict=True),
    (b"", "no_file"),
    (b"text", "not_an_image"),
    (IMAGES[1][:60], "bad_image"),
    (image((255, 0, 0), "WEBP"), "red"),
    (image((0, 0, 255), "JPEG"), "blue"),
    (b"\xff\xd8" + b"x" * 100_000, "too_large"),
]


def outcomes(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [
        entry["problem"]["code"] if "problem" in entry else entry["predictions"][0]["label"]
        for entry in answer.json()["results"]
    ]


def form(files: list[bytes], field: str = "files") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (f"{number}.jpg", content)) for number, content in enumerate(files)]


async def test_sixty_four_good_and_bad_files_give_sixty_four_right_entries(client: httpx.AsyncClient) -> None:
    sent = [MIXED[number % len(MIXED)] for number in range(MOST_IMAGES)]
    expected = [outcome for _, outcome in sent]
    assert outcomes(await client.post("/classify/batch", files=form([content for content, _ in sent]))) == expected
    images = [base64.b64encode(content).decode() for content, _ in sent]
    assert outcomes(await client.post("/classify/batch", json={"images": images})) == expected


async def test_an_entry_is_what_classify_answers_or_its_problem(client: httpx.AsyncClient, red: bytes) -> None:
    answer = (await client.post("/classify/batch?top_k=3", files=form([red, b"text"]))).json()
    single = (await client.post("/classify?top_k=3", content=red)).json()
    assert list(answer) == ["model", "results"]
    assert answer["model"] == single["model"]
    good, bad = answer["results"]
    assert {**good, "timings_ms": None} == {
        "predictions": single["predictions"],
        "confident": None,
        "image": single["image"],
        "timings_ms": None,
    }
    assert bad["problem"] == (await client.post("/classify", content=b"text")).json()


@pytest.mark.parametrize("field", ["file", "image", "files", "images"])
async def test_four_names_of_fields_are_understood(client: httpx.AsyncClient, red: bytes, field: str) -> None:
    answer = await client.post("/classify/batch", files=[*form([red], field), ("note", ("n", b"x"))])
    assert outcomes(answer) == ["red"]


async def test_json_entries_may_be_objects_and_bad_ones_fail_by_themselves(
    client: httpx.AsyncClient, red: bytes
) -> None:
    text = base64.b64encode(red).decode()
    images: list[Any] = [{"b64": text}, text, "no base64", None, 5, {"url": "x"}, "ü", {"b64": text}]
    answer = await client.post("/classify/batch", json={"images": images})
    assert outcomes(answer) == ["red", "red", *["bad_base64"] * 5, "red"]


async def test_base64_may_have_line_ends_as_command_lines_write_it(client: httpx.AsyncClient, red: bytes) -> None:
    text = base64.encodebytes(red).decode()
    assert text.count("\n") > 1
    answer = await client.post("/classify/batch", json={"images": [text, {"b64": text.replace("\n", "\r\n")}]})
    assert outcomes(answer) == ["red", "red"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "bad_json"),
        (b"[1]", "bad_json"),
        (b'{"images": 1}', "bad_json"),
        (b'{"images": []}', "no_file"),
        (b"\xff\xd8", "bad_json"),
        (json.dumps({"images": ["eA=="] * (MOST_IMAGES + 1)}).encode(), "too_many_images"),
    ],
)
async def test_a_body_that_holds_no_images_is_one_problem(client: httpx.AsyncClient, content: bytes, code: str) -> None:
    assert_problem(await client.post("/classify/batch", content=content), 400, code)


async def test_a_form_may_hold_at_most_sixty_four_files(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/classify/batch", files=form([b"x"] * 65)), 400, "too_many_images")
    assert_problem(await client.post("/classify/batch", files={"other": b"x"}), 400, "no_file")


async def test_the_model_and_top_k_are_checked_once(client: httpx.AsyncClient, red: bytes) -> None:
    assert_problem(await client.post("/classify/batch?model=x", files=form([red])), 404, "model_not_found")
    assert_problem(await client.post("/classify/batch?top_k=0", files=form([red])), 400, "bad_top_k")


async def test_a_body_may_be_as_large_as_many_images(models: Path) -> None:
    settings = Settings(models=models, max_image_bytes=10_000, max_request_bytes=400_000, engine_threads=1)
    app = create_app(settings)
    async with client_of(app) as client:
        large = [b"\xff\xd8" + b"x" * 9_000] * 40  # above what the event loop takes apart itself
        assert outcomes(await client.post("/classify/batch", files=form([*large, IMAGES[1]])))[-1] == "red"
        assert_problem(await client.post("/classify/batch", content=b"x" * 400_001), 413, "too_large")
    assert app.state.components.upload_memory.used_bytes == 0


async def test_a_large_body_that_is_alone_finds_room_in_a_share_of_any_size(models: Path) -> None:
    app = create_app(Settings(models=models, max_upload_bytes=1000, engine_threads=1))
    async with client_of(app) as client:
        large = [b"\xff\xd8" + b"x" * 90_000] * 40
        assert outcomes(await client.post("/classify/batch", files=form([*large, IMAGES[1]])))[-1] == "red"
    assert app.state.components.upload_memory.used_bytes == 0


async def test_a_request_of_sixty_four_alone_is_never_refused_however_little_may_wait(models: Path) -> None:
    app = create_app(Settings(models=models, max_queue=1, max_queue_age_s=600, engine_threads=1))
    async with client_of(app) as client:
        answer = await client.post("/classify/batch", files=form(IMAGES * 8))
    assert outcomes(answer) == list(LABELS) * 8


async def test_an_image_that_finds_no_room_for_itself_alone_is_a_problem_of_its_own(
    app: FastAPI, client: httpx.AsyncClient, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Overloaded("full", retry_after_s=1)

    body = await asyncio.to_thread(lambda: httpx.Request("POST", "http://s", files=form([red, red])))
    content, headers = body.read(), {"content-type": body.headers["content-type"]}
    components = app.state.components
    admission = next(layer for layer in app.user_middleware if layer.cls.__name__ == "Admission")
    admission.kwargs["check_capacity"] = lambda _: None
    monkeypatch.setattr(components.batcher, "check_capacity", full)
    assert outcomes(await client.post("/classify/batch", content=content, headers=headers)) == ["overloaded"] * 2
