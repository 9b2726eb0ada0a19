"""A stand-in for the service, with answers that a test chooses and can hold back.

The stand-in serves the page's own files under the same content security policy as the service.
"""

import contextlib
import io
import json
import mimetypes
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

WEB = Path(__file__).parents[2] / "service" / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LABELS = [f"label{number}" for number in range(20)]
MOST_BYTES = 100_000
Problem = tuple[int, dict[str, str], dict[str, Any]]


@dataclass
class ImageRequest:
    """One request with an image, as the service saw it."""

    path: str
    name: str
    bytes: bytes
    query: dict[str, list[str]]
    key: str | None


@dataclass
class StandIn:
    """What the stand-in answers, and the requests it got. Without other orders, the label is the file's name."""

    models: list[str] = field(default_factory=lambda: ["animals:1"])  # the first one is the default
    models_problems: list[Problem] = field(default_factory=list)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    best: dict[str, float] = field(default_factory=dict)  # probability of the best label, by file name
    requests: list[ImageRequest] = field(default_factory=list)
    unplugged: set[str] = field(default_factory=set)  # names of files at which the connection breaks
    key: str | None = None  # that each request has to carry
    address: str = ""

    def classified(self) -> list[str]:
        return [request.name for request in self.requests if request.path == "/classify"]

    def answer(self, request: ImageRequest) -> Problem:
        self.requests.append(request)
        if request.name in self.gates:
            self.gates[request.name].wait(30)
        if self.key is not None and request.key != self.key:
            return 401, {}, {"code": "unauthorized", "detail": "An API key is needed."}
        if self.problems.get(request.name):
            return self.problems[request.name].pop(0)
        return 200, {}, self.answer_for(request)

    def answer_for(self, request: ImageRequest) -> dict[str, Any]:
        best = self.best.get(request.name, 0.934512)
        labels = [request.name.split(".")[0], "dog", "ship", "truck", "frog"]
        probabilities = [best, 0.05, 0.01, 0.0049, 0.0001]
        name, _, version = request.query.get("model", [self.models[0]])[0].partition(":")
        predictions = [
            {
                "label": label,
                "index": index,
                "probability": probability,
                "map": [[index == column for column in range(5)]],
            }
            for index, (label, probability) in enumerate(zip(labels, probabilities, strict=True))
        ]
        return {
            "model": {"name": name, "version": version or "1", "provider": "CPUExecutionProvider", "precision": "fp32"},
            "predictions": predictions,
            "confident": request.name not in self.unsure,
            "image": {"format": "PNG", **size_of(request.bytes)},
            "timings_ms": {"decode": 1.9, "queue": 0.0, "inference": 0.5},
        }

    def described(self) -> dict[str, Any]:
        models = [model_card(*model.split(":"), is_default=model == self.models[0]) for model in sorted(self.models)]
        return {
            "models": models,
            "limits": {"max_image_bytes": MOST_BYTES, "max_pixels": 26_000_000, "max_side": 12_000},
        }


def size_of(content: bytes) -> dict[str, int]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return {"width": image.width, "height": image.height}
    except OSError:
        return {"width": 48, "height": 32}


def model_card(name: str, version: str, *, is_default: bool) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "sha256": "0" * 64,
        "state": "READY",
        "default": is_default,
        "provider": "CPUExecutionProvider",
        "precision": "int8",
        "network": "resnet20",
        "depth": 20,
        "labels": LABELS,
        "dataset": "farm",
        "preprocessing": {"shorter_side": 16, "crop": [16, 16]},
        "accuracy": {"top1": 0.92, "top5": 0.99, "images": 10_000, "dataset": "farm test", "provider": "CPU"},
        "calibration": {"temperature": 1.4, "expected_calibration_error": 0.0174, "images": 2000},
        "confidence": {
            "known_images": 4000,
            "auroc": 0.9,
            "auroc_interval": [0.88, 0.92],
            "compared_unknown_images": 640,
        },
        "precision_loss": {"agreement": 0.98, "images": 5000},
        "provenance": {
            "checkpoint_sha256": "5464ac4c3a6c9701" * 4,
            "recipe": "modern",
            "seed": 0,
            "git_commit": "6f4f4fec6a49",
            "created": "2026-11-24T00:38:16+00:00",
        },
        "published": None,
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True
    stand_in = StandIn()


class RequestHandler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        stand_in = self.server.stand_in
        file = WEB / (self.path.removeprefix("/") or "index.html")
        if self.path == "/models" and stand_in.key not in (None, self.headers["X-Api-Key"]):
            self.send_json(401, {}, {"code": "unauthorized", "detail": "An API key is needed."})
        elif self.path == "/models" and stand_in.models_problems:
            self.send_json(*stand_in.models_problems.pop(0))
        elif self.path == "/models":
            self.send_json(200, {}, stand_in.described())
        elif file.is_file():
            content_type = mimetypes.types_map[file.suffix]
            headers = {"Content-Type": f"{content_type}; charset=utf-8", "Cache-Control": "max-age=3600"}
            self.send(200, headers, file.read_bytes())
        else:
            self.send(404, {}, b"")

    def do_POST(self) -> None:
        request = self.read_question()
        if request.name in self.server.stand_in.unplugged:
            self.server.stand_in.unplugged.discard(request.name)
            return  # and the connection is closed without a word
        self.send_json(*self.server.stand_in.answer(request))

    def read_question(self) -> ImageRequest:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head, _, rest = body.partition(b"\r\n\r\n")
        name = re.search(rb'name="file"; filename="([^"]*)"', head)
        assert name is not None, head
        content = rest[: rest.rindex(b"\r\n" + head.split(b"\r\n", maxsplit=1)[0])]
        address = urlsplit(self.path)
        return ImageRequest(address.path, name[1].decode(), content, parse_qs(address.query), self.headers["X-Api-Key"])

    def send_json(self, status: int, headers: dict[str, str], body: dict[str, Any]) -> None:
        content_type = "application/json" if status == 200 else "application/problem+json"
        timing = "decode;dur=1.90, queue;dur=0.02, inference;dur=0.50, total;dur=3.00"
        headers = {"Content-Type": content_type, "Server-Timing": timing, **headers}
        self.send(status, headers, json.dumps(body).encode())

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Security-Policy": POLICY, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a browser that was closed does not wait for its answer
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
