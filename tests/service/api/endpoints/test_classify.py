"""POST /classify over ASGI: every way to send an image, and every way to send it wrong."""

from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from service.api.parsing.multipart import MAX_PARTS
from tests.service.conftest import image
from tests.support.model_files.tiny_model import LABELS

pytestmark = pytest.mark.anyio

JPEG = {"content-type": "image/jpeg"}


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == f"/docs#{code}"
    assert set(document) == {"type", "title", "status", "detail", "code"}


async def test_the_answer_has_the_fields_of_the_contract(client: httpx.AsyncClient, red: bytes) -> None:
    answer = await client.post("/classify", content=red, headers=JPEG)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document = answer.json()
    assert list(document) == ["model", "predictions", "confident", "image", "timings_ms"]
    assert list(document["model"]) == ["name", "version", "sha256", "provider", "precision"]
    assert document["image"] == {"format": "JPEG", "width": 50, "height": 37}
    assert len(document["predictions"]) == 5
    assert list(document["predictions"][0]) == ["label", "index", "probability"]
    assert document["predictions"][0]["label"] == "red"
    assert set(document["timings_ms"]) == {"decode", "queue", "inference"}
    assert all(time >= 0 for time in document["timings_ms"].values())
    assert all(round(best["probability"], 6) == best["probability"] for best in document["predictions"])


@pytest.mark.parametrize("field", ["file", "image"])
@pytest.mark.parametrize("name", ["red.jpg", "red.gif", "", "ro\u0161.jpg", 'a"b;c=d.jpg'])
async def test_a_form_may_call_its_file_what_it_likes(
    client: httpx.AsyncClient, red: bytes, field: str, name: str
) -> None:
    answer = await client.post("/classify", files={field: (name, red)})
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == "red"


async def test_other_fields_of_a_form_are_ignored(client: httpx.AsyncClient, red: bytes) -> None:
    answer = await client.post("/classify", files={"photo": b"x", "file": red}, data={"note": "hello"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [JPEG, {"content-type": "image/png"}, {"content-type": "text/html"}, {}, {"content-type": "application/json"}],
)
async def test_a_raw_body_is_judged_only_by_its_bytes(
    client: httpx.AsyncClient, red: bytes, headers: dict[str, str]
) -> None:
    answer = await client.post("/classify", content=red, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["image"]["format"] == "JPEG"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
async def test_three_formats_are_understood(client: httpx.AsyncClient, image_format: str) -> None:
    answer = await client.post("/classify", content=image((0, 0, 255), image_format))
    assert answer.json()["image"]["format"] == image_format
    assert answer.json()["predictions"][0]["label"] == "blue"


async def test_a_body_in_pieces_is_put_together(client: httpx.AsyncClient, red: bytes) -> None:
    async def pieces() -> Any:
        for start in range(0, len(red), 100):
            yield red[start : start + 100]

    answer = await client.post("/classify", content=pieces(), headers=JPEG)
    assert answer.json()["predictions"][0]["label"] == "red"


@pytest.mark.parametrize(("top_k", "labels"), [("1", 1), ("05", 5), ("8", 8), ("1000", len(LABELS))])
async def test_as_many_labels_as_requested(client: httpx.AsyncClient, red: bytes, top_k: str, labels: int) -> None:
    answer = await client.post(f"/classify?top_k={top_k}", content=red)
    assert len(answer.json()["predictions"]) == labels


@pytest.mark.parametrize("top_k", ["0", "1001", "-1", "1.0", "five", "", "%20 5", "1e2", "%D9%A3", "9" * 5000, "+5"])
async def test_a_bad_top_k_is_refused(client: httpx.AsyncClient, red: bytes, top_k: str) -> None:
    assert_problem(await client.post(f"/classify?top_k={top_k}", content=red), 400, "bad_top_k")


@pytest.mark.parametrize("model", ["tiny", "tiny:1"])
async def test_a_model_can_be_chosen(client: httpx.AsyncClient, red: bytes, model: str) -> None:
    answer = await client.post("/classify", params={"model": model}, content=red)
    assert answer.json()["model"]["name"] == "tiny"


@pytest.mark.parametrize("model", ["other", "tiny:2", "../tiny", ""])
async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient, red: bytes, model: str) -> None:
    assert_problem(await client.post("/classify", params={"model": model}, content=red), 404, "model_not_found")


async def test_a_query_without_end_is_refused(client: httpx.AsyncClient, red: bytes) -> None:
    assert_problem(await client.post("/classify?" + "a=1&" * 100, content=red), 400, "bad_query")


async def test_unknown_parameters_are_ignored(client: httpx.AsyncClient, red: bytes) -> None:
    assert (await client.post("/classify?colour=red&x=%ff", content=red)).status_code == 200


async def test_nothing_at_all_is_no_file(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/classify"), 400, "no_file")
    assert_problem(await client.post("/classify", headers=JPEG), 400, "no_file")
    assert_problem(await client.post("/classify", files={"file": b""}), 400, "no_file")
    assert_problem(await client.post("/classify", files={"photo": b"x"}), 400, "no_file")


async def test_two_files_are_one_too_many(client: httpx.AsyncClient, red: bytes) -> None:
    assert_problem(await client.post("/classify", files={"file": red, "image": red}), 400, "several_files")
    twice = [("file", red), ("file", red)]
    assert_problem(await client.post("/classify", files=twice), 400, "several_files")


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"\r\n\r\n'
MALFORMED = {
    "no boundary in the body": b"hello",
    "no closing boundary": form(FILE + b"x", end=b""),
    "cut off in the headers": b"--b\r\nContent-Disposition: form-da",
    "a part without a name": form(b"Content-Type: image/jpeg\r\n\r\nx"),
    "a part without a header": form(b"\r\nx"),
    "a header without a colon": form(b"Content-Disposition\r\n\r\nx"),
    "endless headers": form(b"A: b\r\n" * 2000 + FILE + b"x"),
    "an endless header": form(b"A: " + b"b" * 50_000 + b"\r\n" + FILE + b"x"),
    "parts without end": form(*[b'Content-Disposition: form-data; name="x"\r\n\r\n'] * (MAX_PARTS + 1)),
    "null bytes": b"\0" * 1000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_form_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert_problem(await client.post("/classify", content=body, headers=headers), 400, "bad_multipart")


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
        "Multipart/Related; boundary=b",
        "multipart/form-data; boundary=" + "b" * 300,
    ],
)
async def test_a_form_that_does_not_say_its_boundary_is_refused(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post("/classify", content=form(FILE + b"x"), headers={"content-type": content_type})
    assert_problem(answer, 400, "bad_multipart")


async def test_a_form_may_have_words_around_it(client: httpx.AsyncClient, red: bytes) -> None:
    headers = {"content-type": 'multipart/form-data; charset=utf-8; boundary="b"'}
    body = form(b'content-disposition:form-data; filename="x"; name="file"\r\n\r\n' + red) + b"epilogue"
    assert (await client.post("/classify", content=body, headers=headers)).status_code == 200


@pytest.mark.parametrize("content", [b"hello", b"GIF89a" + b"\0" * 100, b"<svg/>", b"\xff\xd8", b"RIFF\0\0\0\0WAVE"])
async def test_what_is_no_image_is_refused_whatever_it_is_called(client: httpx.AsyncClient, content: bytes) -> None:
    assert_problem(await client.post("/classify", content=content, headers=JPEG), 415, "not_an_image")
    answer = await client.post("/classify", files={"file": ("cat.jpg", content, "image/jpeg")})
    assert_problem(answer, 415, "not_an_image")


async def test_a_broken_image_is_unprocessable(client: httpx.AsyncClient, red: bytes) -> None:
    assert_problem(await client.post("/classify", content=red[: len(red) // 2]), 422, "bad_image")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "GZIP"])
async def test_an_encoded_body_is_refused(client: httpx.AsyncClient, red: bytes, encoding: str) -> None:
    answer = await client.post("/classify", content=red, headers={"content-encoding": encoding})
    assert_problem(answer, 415, "unsupported_encoding")


async def test_identity_is_no_encoding(client: httpx.AsyncClient, red: bytes) -> None:
    assert (await client.post("/classify", content=red, headers={"content-encoding": "Identity"})).status_code == 200


async def test_the_file_is_limited_and_not_the_form_around_it(client: httpx.AsyncClient, red: bytes) -> None:
    largest = red + b"\0" * (100_000 - len(red))
    assert (await client.post("/classify", content=largest)).status_code == 200
    assert (await client.post("/classify", files={"file": largest})).status_code == 200
    assert_problem(await client.post("/classify", content=largest + b"\0"), 413, "too_large")
    assert_problem(await client.post("/classify", files={"file": largest + b"\0"}), 413, "too_large")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_only_post_classifies(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/classify")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_a_client_that_leaves_while_uploading_gets_and_costs_nothing(app: FastAPI) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/classify", "raw_path": b"/classify", "query_string": b"",
             "headers": [(b"content-length", b"5")], "root_path": "", "http_version": "1.1", "scheme": "http",
             "server": ("service", 80), "client": ("client", 1)}  # fmt: skip
    with anyio.fail_after(10):
        await app(scope, receive, send)
    assert sent == []
    assert app.state.components.metrics.in_flight == 0


@pytest.mark.parametrize("is_form", [True, False])
async def test_a_file_that_is_too_large_is_refused_with_the_limit_on_images(
    client: httpx.AsyncClient, is_form: bool
) -> None:
    for size in (100_001, 300_000):  # for a form, the first is noticed after its upload
        content = bytes(size)
        answer = await (
            client.post("/classify", files={"file": content}) if is_form else client.post("/classify", content=content)
        )
        assert_problem(answer, 413, "too_large")
        assert answer.json()["detail"] == "An image may have at most 100,000 bytes."


@pytest.mark.parametrize("value", ["", "0", "-5", "1.5", "soon", "99999999999", "3600001"])
async def test_a_deadline_that_makes_no_sense_is_refused(client: httpx.AsyncClient, red: bytes, value: str) -> None:
    answer = await client.post("/classify", content=red, headers={"X-Request-Timeout-Ms": value})
    assert_problem(answer, 400, "bad_timeout")


async def test_a_deadline_that_can_be_made_is(client: httpx.AsyncClient, red: bytes) -> None:
    answer = await client.post("/classify", content=red, headers={"X-Request-Timeout-Ms": "60000"})
    assert answer.status_code == 200
