"""What the verbs of the Makefile run, as make itself says it."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(*words: str) -> str:
    """Return what make would run, with everything installed."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        [
            make,
            "--no-print-directory",
            "--dry-run",
            "--assume-old",
            ".venv/.export",
            "--assume-old",
            ".venv/.develop",
            *words,
        ],
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


def test_each_hook_of_pre_commit_runs_a_command_of_make_check() -> None:
    checks = [line.replace(" --check", "") for line in commands("check").splitlines()]
    hooks = re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert len(hooks) == len(checks)
    for hook in hooks:
        *_, tool = hook.removesuffix(" --force-exclude").partition(".venv/bin/")
        assert any(is_same_tool(tool, check) for check in checks), hook


def is_same_tool(tool: str, check: str) -> bool:
    """Whether a command of make runs this tool, be it on more files."""
    words = check.strip().removeprefix(".venv/bin/").split()
    return all(word in words for word in tool.split())


def test_coverage_runs_every_test_but_those_of_containers_and_measures_the_service() -> None:
    assert commands("coverage").strip() == ('.venv/bin/pytest -q -m "not containers" --cov --cov-report term-missing')
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    assert settings["run"]["source"] == ["service"]
    assert set(settings["run"]["patch"]) == {"subprocess", "fork", "_exit"}, "servers and their workers count, too"
