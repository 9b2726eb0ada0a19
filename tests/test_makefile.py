"""What the verbs of the Makefile run, as make itself says it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(*words: str) -> str:
    """Return what make would run, with everything installed."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        [make, "--no-print-directory", "--dry-run", "--assume-old", ".venv/.export", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


def test_imagenet_exports_published_weights_and_hands_on_the_arguments() -> None:
    assert commands("imagenet", "ARGS=--pretrained timm-a1").strip() == (
        ".venv/bin/export-onnx --depth 50 --weights published --pretrained timm-a1"
    )


def test_imagenet_exports_int8_too_where_photos_are_given() -> None:
    fp32, int8 = commands("imagenet", "DEPTH=18", "CALIBRATION=photos").strip().splitlines()
    assert fp32.strip() == ".venv/bin/export-onnx --depth 18 --weights published"
    assert int8.strip() == fp32.strip() + " --precision int8 --calibration photos"
