"""What is released: equal packages from equal sources, a true SBOM, known licences, and hashes for the image."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from release.bundled import BUNDLED
from release.sbom import FILE as SBOM
from release.sbom import sbom
from release.third_party import FILE as LICENCES
from release.third_party import third_party
from service.version import commit, describe_version

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.{0}(sys.argv[1]))"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / "constraints" / file).read_text().splitlines()
    found = (re.match(r"([a-z0-9-]+)==([^ ;\\]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_the_sbom_of_the_wheel_is_what_the_generator_writes() -> None:
    assert SBOM.read_text() == sbom()
    document = json.loads(sbom())
    assert [one["name"] for one in document["components"]] == [one.name for one in BUNDLED]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert document["metadata"]["component"]["version"] == project["version"]


def test_the_sbom_is_valid_cyclonedx() -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-bom is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(sbom()) is None


def test_bundled_works_are_there_with_their_version_and_licence() -> None:
    for one in BUNDLED:
        path = ROOT / one.folder
        texts = [path] if path.is_file() else sorted(path.glob("*.txt"))
        assert any("license" in text.read_text("utf-8", errors="replace").lower() for text in texts), one.name
    (swagger,) = (one for one in BUNDLED if one.name == "swagger-ui")
    assert swagger.version in (ROOT / swagger.folder / "swagger-ui-bundle.js").read_text("utf-8")


def test_the_page_of_licences_is_what_the_generator_writes() -> None:
    assert LICENCES.read_text() == third_party()


@pytest.mark.parametrize(
    ("lock", "files"),
    [("service-cpu.lock", ("service.txt", "service-cpu.txt")), ("signatures.lock", ("signatures.txt",))],
)
def test_a_lock_has_the_pinned_versions_each_with_hashes(lock: str, files: tuple[str, ...]) -> None:
    pinned = {name: version for file in files for name, version in pins(file).items()}
    locked = pins(lock)
    locked.pop("colorama", None)  # on Windows only
    assert locked == pinned
    text = (ROOT / "constraints" / lock).read_text()
    for block in re.split(r"\n(?=[a-z])", text.split("\n", 2)[2]):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block


def test_signatures_are_verified_by_the_same_versions_everywhere() -> None:
    assert pins("signatures.txt").items() <= pins("development.txt").items()


def test_the_version_is_one_line_with_the_commit() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--version"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"{describe_version()}\n"
    assert re.fullmatch(r"resnet-service \S+, commit (unknown|[0-9a-f]{40}(\+changes)?)\n", done.stdout)


def test_a_commit_in_the_package_comes_before_that_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.version._PACKAGE", tmp_path)
    assert commit() == "unknown"
    (tmp_path / "commit.txt").write_text(f"{COMMIT}\n")
    assert commit() == COMMIT


def sources(target: Path, moment: int) -> Path:
    """Copy what packages are made of, with this time of every file."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*_NOT_IN_PACKAGES), symlinks=True)
    for path in target.rglob("*"):
        os.utime(path, (moment, moment), follow_symlinks=False)
    return target


_NOT_IN_PACKAGES = (".*", "__pycache__", "tests", "runs", "data", "build", "dist", "*.egg-info", "commit.txt")


def built(kind: str, source: Path, out: Path) -> Path:
    out.mkdir(parents=True)
    variables = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "SOURCE_COMMIT": COMMIT, "PYTHONPATH": ""}
    command = [sys.executable, "-c", BUILD.format(kind), str(out)]
    done = subprocess.run(command, cwd=source, env=variables, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.timeout(600)
def test_packages_built_twice_are_equal_and_the_sdist_makes_the_same_wheel(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("this setuptools is too old for pyproject.toml")
    first, second = sources(tmp_path / "a", 1_000_000_000), sources(tmp_path / "elsewhere" / "b", 1_600_000_000)
    wheel = built("build_wheel", first, tmp_path / "1")
    assert digest(wheel) == digest(built("build_wheel", second, tmp_path / "2"))
    archive = built("build_sdist", first, tmp_path / "3")
    assert digest(archive) == digest(built("build_sdist", second, tmp_path / "4"))
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert digest(wheel) == digest(built("build_wheel", unpacked, tmp_path / "5"))
    with zipfile.ZipFile(wheel) as content:
        assert content.read("service/commit.txt").decode() == f"{COMMIT}\n"
        (inside,) = (name for name in content.namelist() if name.endswith(f".dist-info/sboms/{SBOM.name}"))
        assert content.read(inside).decode() == sbom()
        assert any(name.endswith(f"licenses/{LICENCES.name}") for name in content.namelist())


@pytest.mark.timeout(600)
def test_an_image_installs_the_package_from_what_docker_sends(tmp_path: Path) -> None:
    """The files of models are not among them: an image has its own in /models."""
    pytest.importorskip("setuptools")
    source = sources(tmp_path / "context", 1_000_000_000)
    shutil.rmtree(source / "models")
    with zipfile.ZipFile(built("build_wheel", source, tmp_path / "out")) as content:
        names = content.namelist()
    assert "service/app.py" in names
    assert not [name for name in names if name.endswith("model.onnx")]
