"""From a folder of somebody's own images to answers over HTTP, by the commands of docs/own-images.md."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.image_files.messy_images import BROKEN, CLASSES, STRAYS, write_messy_images
from tests.support.servers.running_service import running_service

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody works: images/, and what the commands make of it."""
    here = tmp_path_factory.mktemp("somebody")
    write_messy_images(here / "images")
    return here


def command(folder: Path, module: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of this project in the folder, without a connection to whoever publishes weights."""
    surroundings = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    surroundings["RESNET_WEIGHTS_MIRROR"] = "http://127.0.0.1:9"
    start = "import sys; from {0} import {1}; sys.argv[0] = '{0}'; {1}()"
    code = start.format(*module.split(":"))
    result = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=dict(os.environ) | surroundings,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.long
def test_a_messy_folder_is_trained_evaluated_exported_asked_and_served_without_help(folder: Path) -> None:
    trained = command(
        folder, "training.cli:start", "run", "--recipe", "finetune", "--data", "images/", "--out", "runs/pets"
    )
    assert f"files that cannot be used: {len(BROKEN | STRAYS)}; runs/pets/skipped.csv" in trained.stderr
    assert trained.stdout.strip() == "done: runs/pets; export it with: export-onnx --checkpoint runs/pets"

    measured = command(folder, "training.cli:start", "evaluate", "--checkpoint", "runs/pets", "--data", "images")
    assert all(name in measured.stdout for name in CLASSES)
    evaluation = json.loads((folder / "runs" / "pets" / "evaluation" / "centre" / "evaluation.json").read_text())
    assert evaluation["images"] == 29 and evaluation["held_out"]["images"] == 6

    exported = command(folder, "export.cli:main", "--checkpoint", "runs/pets")
    network = json.loads((folder / "runs" / "pets" / "run.json").read_text())["network"]  # of a shipped run
    assert f"models/images-{network}/1/model.onnx" in exported.stdout + exported.stderr

    image = folder / "images" / "blaue Flächen" / "image 00 ü.jpg"
    asked = command(folder, "service.cli.classify:main", "--format", "json", str(image.relative_to(folder)))
    assert json.loads(asked.stdout)["predictions"][0]["label"] == "blaue Flächen"

    with running_service(folder / "models") as address:
        request = urllib.request.Request(f"{address}/classify", data=image.read_bytes())
        with urllib.request.urlopen(request, timeout=20) as answer:
            body = json.load(answer)
    assert body["model"]["name"] == f"images-{network}"
    assert body["predictions"][0]["label"] == "blaue Flächen"
    assert {prediction["label"] for prediction in body["predictions"]} == set(CLASSES)
