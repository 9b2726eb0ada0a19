"""Workflows run verbs of the Makefile, with actions pinned by digest and no permission that they do not need."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
VERBS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VERBS.add("docs")  # builds the site
_WRITES = {
    ("codeql", "analyze", "security-events"),
    ("docs", "deploy", "id-token"),
    ("docs", "deploy", "pages"),
    ("release", "publish", "attestations"),
    ("release", "publish", "id-token"),
}


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_there_is_a_workflow_for_each_part_of_a_release() -> None:
    names = {path.stem for path in WORKFLOWS}
    assert names == {"audit", "codeql", "containers", "docs", "release", "test"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_a_digest_with_its_version(path: Path) -> None:
    for line in re.findall(r"uses: (.*)", path.read_text()):
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d[\d.]*", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_a_verb_of_the_makefile(path: Path) -> None:
    for step in steps(path):
        if "run" in step:
            command, *words = step["run"].split()
            assert command == "make"
            assert {word for word in words if "=" not in word} <= VERBS, step["run"]


def test_only_the_jobs_that_publish_may_write() -> None:
    found = set()
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {}
        for name, job in load(path)["jobs"].items():
            found |= {(path.stem, name, right) for right, level in job["permissions"].items() if level == "write"}
    assert found == _WRITES


def test_no_checkout_keeps_its_token() -> None:
    for path in WORKFLOWS:
        for step in steps(path):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize(
    "words",
    [
        ("zizmor", "--offline", "--no-progress", ".github"),
        ("actionlint",),
        ("hadolint", "docker/service.Dockerfile", "docker/export.Dockerfile"),
    ],
    ids=lambda words: words[0],
)
def test_linters_find_nothing(words: tuple[str, ...]) -> None:
    tool = shutil.which(words[0], path=f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if tool is None:
        pytest.skip(f"{words[0]} is not installed; make lint-release runs it")
    done = subprocess.run([tool, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
