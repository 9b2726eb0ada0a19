"""`serve-resnet` as a process, real images over a real socket: answers and refusals."""

import contextlib
import http.client
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.model_files.default_model import SHIPPED_MODEL
from tests.service.conftest import image
from tests.support.servers.served import ROOT, Served, serving, wait_until

SHIPPED = ROOT / "models"
HAS_SHIPPED_MODEL = (SHIPPED / SHIPPED_MODEL).exists()
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    """One server for all tests that leave it as it was."""
    with serving(models) as served:
        yield served


def form(content: bytes) -> tuple[bytes, dict[str, str]]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


def assert_answer(document: Any, least: float = 0.2) -> None:
    """`least`: what the best of five labels must have, of a model of eight classes."""
    assert list(document) == ["model", "predictions", "confident", "image", "timings_ms"]
    assert re.fullmatch("[0-9a-f]{64}", document["model"]["sha256"])
    assert document["model"]["provider"] == "CPUExecutionProvider"
    assert document["image"] == {"format": "JPEG", "width": 50, "height": 37}
    assert len(document["predictions"]) == 5
    probabilities = [best["probability"] for best in document["predictions"]]
    assert (
        probabilities == sorted(probabilities, reverse=True)
        and probabilities[0] > least
        and sum(probabilities) <= 1.00001
    )


def test_an_image_is_answered_as_a_form_and_as_a_body(served: Served, red: bytes) -> None:
    for body, headers in (form(red), (red, {"Content-Type": "image/jpeg"})):
        status, document = served.ask("POST", "/classify", body, headers)
        assert status == 200, document
        assert_answer(document)
        assert document["predictions"][0]["label"] == "red"


@pytest.mark.skipif(not HAS_SHIPPED_MODEL, reason="the shipped model is not there")
def test_the_shipped_model_answers(red: bytes) -> None:
    with serving(SHIPPED) as served:
        status, document = served.ask("POST", "/classify", *form(red))
        assert status == 200, document
        assert_answer(document, least=0.05)  # of 200 classes, for an image of none of them
        assert document["model"]["name"] == SHIPPED_MODEL
        assert served.ask("POST", "/classify?top_k=1000", red)[1]["predictions"][9]["label"]


def test_the_admin_port_counts_what_the_public_port_does(served: Served, red: bytes) -> None:
    served.ask("POST", "/classify", red)
    admin = Served(served.process, served.admin_port, 0)
    status, text = admin.ask("GET", "/metrics")
    assert status == 200
    assert re.search(r'resnet_requests_total\{method="POST",route="/classify",status="200"\} [1-9]', text)


def test_what_is_not_http_gets_a_problem_document(served: Served) -> None:
    with served.raw() as connection:
        connection.sendall(b"HELO mail.example\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert json.loads(answer.read())["code"] == "bad_http"
    identity = answer.headers["x-request-id"]
    wait_until(lambda: any(f'"request_id":"{identity}"' in line for line in served.log))
    line = json.loads(next(line for line in served.log if identity in line))
    assert (line["status"], line["code"], line["client"], line["route"]) == (400, "bad_http", "127.0.0.1", "other")
    text = served.ask_admin("GET", "/metrics")[1]
    assert re.search(r'resnet_refusals_total\{code="bad_http"\} [1-9]', text)
    assert re.search(r'resnet_requests_total\{method="other",route="other",status="400"\} [1-9]', text)


def test_a_page_of_an_allowed_site_can_read_the_servers_own_errors(models: Path) -> None:
    with serving(models, "--cors-origins", "https://shop.example") as served, served.raw() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.example\r\nX: " + b"a" * 70_000)
        head = client.recv(4096).partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"access-control-allow-origin: https://shop.example\r\n" in head


def test_the_admin_port_logs_its_requests_too(served: Served) -> None:
    served.ask_admin("POST", "/admin/models/none/load", headers={"x-request-id": "from-an-operator"})
    wait_until(lambda: any("from-an-operator" in line for line in served.log))
    line = json.loads(next(line for line in served.log if "from-an-operator" in line))
    assert (line["route"], line["status"], line["code"]) == ("/admin/models/{model}/load", 404, "model_not_found")


def test_no_answer_names_the_software_behind_it(served: Served) -> None:
    with contextlib.closing(served.connect()) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().headers["server"] is None


@pytest.mark.parametrize("is_form", [True, False])
def test_an_oversized_upload_sees_its_refusal_and_no_reset(served: Served, is_form: bool) -> None:
    content = b"\xff\xd8\xff" + bytes(25 * MIB)
    body, headers = form(content) if is_form else (content, {})
    for _ in range(3):
        status, document = served.ask("POST", "/classify", body, headers)
        assert (status, document["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("port", "path", "expected"),
    [
        ("port", "/nothing", 404),
        ("port", "/models", 405),
        ("port", "/", 405),
        ("admin_port", "/metrics", 405),
        ("admin_port", "/classify", 404),
    ],
)
def test_an_upload_to_a_path_without_one_is_refused_at_any_size(
    served: Served, port: str, path: str, expected: int
) -> None:
    where = Served(served.process, getattr(served, port), 0)
    for size in (10, 25 * MIB):
        assert where.ask("POST", path, bytes(size))[0] == expected


def test_an_oversized_upload_of_unknown_length_is_cut_short(served: Served) -> None:
    with served.raw() as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (MIB, bytes(MIB))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:  # a client that does not look until the server has had enough
                connection.sendall(chunk)
                sent += MIB
        assert 20 * MIB <= sent < 100 * MIB
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413


def test_a_client_that_asks_first_is_refused_before_it_sends(served: Served) -> None:
    with served.raw() as connection:
        head = b"POST /classify HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (30 * MIB))
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_client_that_expects_100_continue_receives_it(served: Served, red: bytes) -> None:
    with served.raw() as connection:
        head = b"POST /classify HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(red))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(red)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_hostile_bytes_never_fail_the_server(served: Served) -> None:
    dice = random.Random(5)
    whole = [image((9, 99, 199), kind) for kind in ("JPEG", "PNG", "WEBP")]
    contents = [dice.randbytes(dice.randrange(1, 5000)) for _ in range(20)]
    contents += [image[: len(image) * part // 16] for image in whole for part in range(1, 16)]
    contents += [image[:8] + dice.randbytes(500) for image in whole for _ in range(5)]
    for content in contents:
        for body, headers in (form(content), (content, {})):
            status, document = served.ask("POST", "/classify", body, headers)
            assert status in (200, 415, 422), document
    assert served.process.poll() is None
    assert served.ask("GET", "/health/ready")[0] == 200


def test_many_requests_on_one_connection(served: Served, red: bytes) -> None:
    with contextlib.closing(served.connect()) as connection:
        for body in (red, b"text", red, b"", red):
            connection.request("POST", "/classify", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == {b"text": 415, b"": 400}.get(body, 200)


def test_a_small_body_that_was_refused_unread_leaves_the_connection_in_order(served: Served, red: bytes) -> None:
    with contextlib.closing(served.connect()) as connection:
        for path, body, status in (
            ("/classify?model=none", bytes(60_000), 404),
            ("/classify", red, 200),
            ("/nothing", bytes(60_000), 404),
            ("/classify?top_k=0", bytes(60_000), 400),
            ("/classify", red, 200),
        ):
            connection.request("POST", path, body)
            assert connection.sock is not None
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            assert answer.headers["connection"] is None
