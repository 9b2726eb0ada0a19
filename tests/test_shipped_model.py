"""The model in models/: as good as promised, for somebody who has the file, its card, and nothing else from here."""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "cifar10-resnet20" / "1" / "model.onnx"
RUN = ROOT / "training" / "results" / "cifar10-resnet20"
TEST_SET = ROOT.parent / "shared" / "data" / "cifar10-test.tar"
PICTURE = ROOT / "tests" / "fixtures" / "pictures" / "jpeg_420.jpg"


def session_and_card() -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["model_card"])


@pytest.mark.shared
@pytest.mark.skipif(not TEST_SET.exists(), reason="needs the CIFAR-10 test set beside the checkout")
def test_at_least_91_8_percent_of_the_test_set_get_the_right_label() -> None:
    session, card = session_and_card()
    pixels, names = [], []
    with tarfile.open(TEST_SET) as tar:
        for member in tar.getmembers():
            if member.isfile() and (file := tar.extractfile(member)) is not None:
                pixels.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
                names.append(member.name.split("/")[-2])
    best = [session.run(["top_indices"], {"images": np.stack(pixels[i : i + 100])})[0] for i in range(0, 10_000, 100)]
    labels = np.array([card["labels"].index(name) for name in names])
    top1 = float((np.concatenate(best)[:, 0] == labels).mean())
    assert len(labels) == 10_000
    assert top1 >= 0.918
    assert top1 == pytest.approx(card["accuracy"]["top1"], abs=2e-4)
    assert card["accuracy"]["images"] == 10_000


def test_the_card_says_where_the_model_comes_from() -> None:
    _, card = session_and_card()
    run = json.loads((RUN / "run.json").read_text())
    assert card["labels"] == run["labels"] and card["network"] == run["network"] == "resnet20"
    assert card["provenance"]["recipe"] == run["recipe"]["name"] and card["provenance"]["seed"] == run["seed"]
    assert len(run["held_out"]) == 2_000 and card["calibration"]["images"] == 2_000
    assert card["parity"]["agreeing_images"] == card["parity"]["images"]


def test_the_script_in_the_readme_classifies_as_the_command_does(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "script.py"
    script.write_text(next(block for block in blocks if "InferenceSession" in block))
    by_script = subprocess.run(
        [sys.executable, str(script), str(MODEL), str(PICTURE)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    command = [str(Path(sys.executable).parent / "classify"), "--models", str(ROOT / "models"), "--format", "json"]
    by_command = subprocess.run([*command, str(PICTURE)], capture_output=True, text=True, check=True)
    predictions = json.loads(by_command.stdout)["predictions"]
    expected = [f"{best['probability']:.4f}  {best['label']}" for best in predictions]
    assert by_script.stdout.splitlines() == expected
