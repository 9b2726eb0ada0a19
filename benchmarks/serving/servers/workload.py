"""A workload: one model file, some images, and the labels that each must get."""

import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.clients.connections import Question
from benchmarks.serving.progress import log

ROOT = Path(__file__).parents[3]
_SHIPPED = {  # (network, precision) → a file of models/
    ("resnet20", "fp32"): ROOT / "models" / "cifar10-resnet20" / "1" / "model.onnx",
    ("everyday", "int8"): ROOT / "models" / "everyday-resnet18-int8" / "1" / "model.onnx",
}
_RUN_OF_THE_SHIPPED = ROOT / "training" / "results" / "cifar10-resnet20"
# Network → what export-onnx needs to make it.
_EXPORTS = {
    "resnet20": ["--checkpoint", str(_RUN_OF_THE_SHIPPED)],
    "resnet50": ["--depth", "50", "--weights", "random"],
}
_EXPORTER = [sys.executable, "-c", "from export.cli import main; main()"]  # export-onnx, of this checkout
NETWORKS = (*_EXPORTS, "everyday")
PRECISIONS = ("fp32", "int8")
_BOUNDARY = b"benchmark-4c1f7a"


class NotThere(Exception):
    """A model cannot be made here. The message is one line for the table."""


@dataclass(frozen=True)
class Workload:
    """One network in one precision, with its images."""

    network: str
    precision: str
    model: Path
    images: tuple[bytes, ...]
    expected: tuple[tuple[str, ...], ...]  # the first labels of each image, as far as they are clear

    @property
    def models(self) -> Path:
        """The folder that our service is given: <models>/<name>/1/model.onnx."""
        return self.model.parents[3]

    @property
    def is_small(self) -> bool:
        """Whether an image takes so little that batches help even on a CPU."""
        return self.network == "resnet20"

    @property
    def name(self) -> str:
        return f"{self.network} {self.precision}"

    @functools.cache  # noqa: B019 -- a handful of workloads live as long as the program
    def questions(self, takes_form: bool) -> list[Question]:
        """Return a request for each image, as a form with the field `file` or as the bare bytes."""
        return [
            Question(
                _request(image, takes_form),
                re.compile(answer_pattern(labels, _escape_for_python).encode(), re.DOTALL),
            )
            for image, labels in zip(self.images, self.expected, strict=True)
        ]

    def write_for_wrk(self, folder: Path, takes_form: bool) -> None:
        """Write what `wrk.lua` reads."""
        lines = []
        for number, (question, labels) in enumerate(zip(self.questions(takes_form), self.expected, strict=True)):
            (folder / f"{number}.http").write_bytes(question.request)
            lines.append(f"{{ file = '{number}.http', pattern = [==[{answer_pattern(labels, _escape_for_lua)}]==] }},")
        (folder / "questions.lua").write_text("return {\n" + "\n".join(lines) + "\n}\n")


def answer_pattern(labels: tuple[str, ...], escape: Callable[[str], str]) -> str:
    """Return the pattern of an answer whose first labels are these, in this order, with nothing between them.

    Written so that Python and Lua read it alike, once `escape` has made the rest literal.
    """
    brackets = escape("["), escape("{")
    parts = [f'"label": ?"{escape(json.dumps(label)[1:-1])}"' for label in labels]
    return f'"predictions": ?{brackets[0]}{brackets[1]}' + f"[^{{]*{brackets[1]}".join(parts)


def _escape_for_python(text: str) -> str:
    return re.escape(text)


def _escape_for_lua(text: str) -> str:
    return re.sub(r"([^\w\s])", r"%\1", text)


def _request(image: bytes, takes_form: bool) -> bytes:
    if takes_form:
        part = b'Content-Disposition: form-data; name="file"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        body = b"--" + _BOUNDARY + b"\r\n" + part + image + b"\r\n--" + _BOUNDARY + b"--\r\n"
        kind = b"multipart/form-data; boundary=" + _BOUNDARY
    else:
        body, kind = image, b"image/jpeg"
    head = b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def make_workload(network: str, precision: str, cache: Path, photos: Path | None) -> Workload:
    """Export the network unless that was done before, and prepare its images. Raises NotThere."""
    model = _model(network, precision, cache)
    folder = cache / "pictures" / f"{network}-{precision}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind = "small" if network == "resnet20" else "photos"
    place = [str(photos)] if photos else []
    command = [sys.executable, "-m", "benchmarks.serving.servers.prepare", str(model), str(folder), kind, *place]
    subprocess.run(command, cwd=ROOT, check=True)
    expected = json.loads((folder / "expected.json").read_text())
    images = tuple((folder / f"{number}.jpg").read_bytes() for number in range(len(expected)))
    return Workload(network, precision, model, images, tuple(tuple(labels) for labels in expected))


def _model(network: str, precision: str, cache: Path) -> Path:
    model = cache / "models" / _digest_of_the_exporter() / f"{network}-{precision}" / network / "1" / "model.onnx"
    if model.exists():
        return model
    if (network, precision) in _SHIPPED:
        model.parent.mkdir(parents=True)
        shutil.copyfile(_SHIPPED[network, precision], model)
        return model
    if network not in _EXPORTS:
        raise NotThere(f"{network} {precision} is not among the shipped models")
    choice = [] if precision == "fp32" else ["--precision", precision]
    command = [*_EXPORTER, *_EXPORTS[network], *choice, "--output", str(model)]
    log(f"exporting {network} {precision}")
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode != 0 or not model.exists():
        raise NotThere(f"{network} {precision} could not be exported: {(made.stderr.strip() or '?').splitlines()[-1]}")
    return model


def _digest_of_the_exporter() -> str:
    """A model is made again when anything that makes it has changed."""
    digest = hashlib.sha256()
    for path in _SHIPPED.values():
        digest.update(path.read_bytes())
    for path in [*sorted((ROOT / "export").rglob("*.py")), ROOT / "training" / "networks" / "resnet.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
