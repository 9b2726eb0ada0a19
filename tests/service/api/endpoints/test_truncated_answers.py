"""Every answer about a JPEG whose end is missing says so, and no other answer mentions it."""

import json
from pathlib import Path

import httpx
import pytest

from tests.service.api.endpoints.test_classify import assert_problem
from tests.service.cli.test_classify import run
from tests.service.conftest import image
from tests.support.image_files.images import encoded, scene

pytestmark = pytest.mark.anyio

WHOLE = encoded(scene(480, 640), "JPEG")
TRUNCATED, HALF = WHOLE[:-2], WHOLE[: len(WHOLE) // 2]
SIZE = {"format": "JPEG", "width": 480, "height": 640}


@pytest.mark.parametrize("path", ["/classify", "/explain", "/embed"])
async def test_an_answer_about_one_image_says_that_its_end_is_missing(client: httpx.AsyncClient, path: str) -> None:
    whole, truncated = [(await client.post(path, content=content)).json() for content in (WHOLE, TRUNCATED)]
    assert truncated["image"] == {**SIZE, "truncated": True}
    assert whole["image"] == SIZE
    without = [
        {key: value for key, value in answer.items() if key not in ("image", "timings_ms")}
        for answer in (whole, truncated)
    ]
    assert without[0] == without[1]
    assert_problem(await client.post(path, content=HALF), 422, "bad_image")


async def test_each_image_of_a_batch_says_so_for_itself(client: httpx.AsyncClient) -> None:
    files = [
        ("files", (name, content))
        for name, content in (("a", WHOLE), ("b", TRUNCATED), ("c", HALF), ("d", image((255, 0, 0))))
    ]
    results = (await client.post("/classify/batch", files=files)).json()["results"]
    assert [result.get("image", {}).get("truncated") for result in results] == [None, True, None, None]
    assert results[0]["predictions"] == results[1]["predictions"]
    assert results[2]["problem"]["code"] == "bad_image"


async def test_the_open_protocol_takes_it_too(client: httpx.AsyncClient) -> None:
    headers = {"inference-header-content-length": "0"}
    whole, truncated = [
        (await client.post("/v2/models/tiny/infer", content=content, headers=headers)).content
        for content in (WHOLE, TRUNCATED)
    ]
    assert whole == truncated


async def test_the_document_knows_the_field(client: httpx.AsyncClient) -> None:
    image = (await client.get("/openapi.json")).json()["components"]["schemas"]["Image"]
    assert image["properties"]["truncated"]["type"] == "boolean"
    assert image["required"] == ["format", "width", "height"]


def test_the_command_says_so_in_both_formats(models: Path, tmp_path: Path) -> None:
    files = [tmp_path / "whole.jpg", tmp_path / "truncated.jpg", tmp_path / "half.jpg"]
    for file, content in zip(files, (WHOLE, TRUNCATED, HALF), strict=True):
        file.write_bytes(content)
    table = run("--models", models, *files)
    assert table.exit_code == 1
    assert f"{files[0]}  (JPEG, 480 x 640)\n" in table.stdout
    assert f"{files[1]}  (JPEG, 480 x 640, its end is missing)\n" in table.stdout
    assert f"{files[2]}: The JPEG image is broken or truncated" in table.stderr
    lines = [json.loads(line) for line in run("--models", models, "--format", "json", *files[:2]).stdout.splitlines()]
    assert [line["image"] for line in lines] == [SIZE, {**SIZE, "truncated": True}]


def test_the_command_has_the_limits_as_options(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(image((255, 0, 0), "PNG"))
    assert (
        "at most 1,000 are accepted (--max-pixels sets the limit)"
        in run("--models", models, "--max-pixels", 1000, tmp_path).stderr
    )
    assert "at most 40 (--max-side sets the limit)" in run("--models", models, "--max-side", 40, tmp_path).stderr
    monkeypatch.setenv("RESNET_MAX_SIDE", "40")
    assert run("--models", models, tmp_path).exit_code == 1
