"""`classify --server`: the server's answers, its refusals and its absence."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.cli.client import Client, ServerError
from tests.service.cli.test_classify import run
from tests.service.conftest import image

ANSWER = {
    "model": {"name": "m"},
    "predictions": [{"label": "cat", "index": 3, "probability": 0.75}],
    "image": {"format": "JPEG", "width": 50, "height": 37},
    "timings_ms": {},
}
OVERLOADED = {"code": "overloaded", "detail": "Too many images are waiting; try again later."}

Reply = Callable[[BaseHTTPRequestHandler, bytes], tuple[int, dict[str, str], bytes]]


@contextmanager
def server(reply: Reply) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, headers, body = reply(self, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def as_json(status: int, answer: object, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, headers, json.dumps(answer).encode()


def ask_once(url: str) -> dict[str, Any]:
    with contextlib.closing(Client(url)) as client:
        return client.classify(b"image", top_k=5, model=None)


def test_the_server_gets_the_image_the_question_and_the_key(tmp_path: Path) -> None:
    seen = []

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        seen.append((request.path, request.headers["authorization"], body))
        return as_json(200, ANSWER)

    file = tmp_path / "cat.jpg"
    file.write_bytes(image((255, 0, 0)))
    with server(reply) as url:
        options = ("--server", f"{url}/base/", "--api-key", "secret", "--model", "pets:2", "--top-k", 3)
        result = run(*options, file)
    assert seen == [("/base/classify?top_k=3&model=pets%3A2", "Bearer secret", file.read_bytes())]
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{file}  (JPEG, 50 x 37)", f"  cat   75.00%  {'█' * 22}"]


def test_a_refused_image_does_not_fail_the_others(tmp_path: Path) -> None:
    refusal = {"code": "not_an_image", "detail": "Only JPEG, PNG and WebP images are accepted."}
    (tmp_path / "1.jpg").write_bytes(b"no image")
    (tmp_path / "2.jpg").write_bytes(image((255, 0, 0)))
    with server(lambda _, body: as_json(415, refusal) if body == b"no image" else as_json(200, ANSWER)) as url:
        result = run("--server", url, tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path / '1.jpg'}: {refusal['detail']}\n"
    assert "cat" in result.stdout


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_gets_a_retry_after_its_delay(tmp_path: Path, status: int) -> None:
    replies = [as_json(status, OVERLOADED, **{"retry-after": "0"})] * 2 + [as_json(200, ANSWER)]
    with server(lambda *_: replies.pop(0)) as url:
        assert ask_once(url) == ANSWER
    assert not replies


def test_a_server_that_stays_busy_is_reported_as_that() -> None:
    with server(lambda *_: as_json(503, OVERLOADED, **{"retry-after": "0"})) as url:
        answer = ask_once(url)
    assert answer == {"error": {"status": 503, **OVERLOADED}}


def test_a_connection_that_ended_meanwhile_is_opened_again() -> None:
    def reply(request: BaseHTTPRequestHandler, _: bytes) -> tuple[int, dict[str, str], bytes]:
        request.close_connection = True
        return as_json(200, ANSWER)

    with server(reply) as url, contextlib.closing(Client(url)) as client:
        for _ in range(3):
            assert client.classify(b"image", top_k=5, model=None) == ANSWER


@pytest.mark.parametrize("reply", [(200, {}, b"<html>"), (404, {}, b"{}"), (200, {}, b"[1]")])
def test_another_kind_of_server_is_reported_as_that(reply: tuple[int, dict[str, str], bytes]) -> None:
    with server(lambda *_: reply) as url, pytest.raises(ServerError, match="is not serve-resnet"):
        ask_once(url)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        (tmp_path / "1.jpg").write_bytes(b"image")
        result = run("--server", url, tmp_path / "1.jpg")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"classify: cannot reach {url}: Connection refused; is the server running there?\n"


@pytest.mark.parametrize(
    "url", ["ftp://here", "http://", "http:///path", "http://a:99999", "http://a:port", "http://[", "http://a b"]
)
def test_an_invalid_address_is_reported_as_that(url: str) -> None:
    with pytest.raises(ServerError, match="not an address"):
        Client(url)


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel", "鍵", "two words"])
def test_an_invalid_key_is_reported_without_being_shown(key: str) -> None:
    with pytest.raises(ServerError, match="not an API key") as caught:
        Client("http://a", api_key=key)
    assert key not in str(caught.value)


def test_the_line_end_of_a_file_does_not_belong_to_the_key() -> None:
    def reply(request: BaseHTTPRequestHandler, _: bytes) -> tuple[int, dict[str, str], bytes]:
        return as_json(200 if request.headers["authorization"] == "Bearer secret" else 401, ANSWER)

    with server(reply) as url, contextlib.closing(Client(url, api_key="secret\n")) as client:
        assert client.classify(b"x", top_k=1, model=None) == ANSWER
