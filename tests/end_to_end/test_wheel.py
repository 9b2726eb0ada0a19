"""The wheel: everything that a user needs is in it, and works where there is no checkout."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest

from service.model_files.default_model import SHIPPED_MODEL
from tests.support.servers.served import ROOT, serving_command

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
PHOTO = ROOT / "tests" / "fixtures" / "images" / "jpeg_420.jpg"
MODEL = f"share/resnet-service/models/{SHIPPED_MODEL}/1/model.onnx"
MOST_BYTES = 40_000_000  # a package index takes 100 MB


def done(*command: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from what is under version control."""
    pytest.importorskip("setuptools", reason="setuptools builds the wheel")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = done("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=ROOT)
    if listed.returncode != 0:
        pytest.skip("this is no checkout of git")
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    script = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    built = done(sys.executable, "-c", script, out, folder=source)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment with the wheel; its dependencies are those of this one."""
    uv = pytest.importorskip("uv", reason="uv installs the wheel")
    environment = tmp_path_factory.mktemp("environment") / "venv"
    assert done(sys.executable, "-m", "venv", "--without-pip", environment, folder=ROOT).returncode == 0
    python = environment / "bin" / "python"
    installed = done(
        uv.find_uv_bin(), "pip", "install", "--offline", "--no-deps", "--python", python, wheel, folder=environment
    )
    assert installed.returncode == 0, installed.stderr
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(
        f"{Path(numpy.__file__).parents[1]}\n"
    )  # whose own .pth files have no effect
    return environment / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a photo, and without models."""
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    return tmp_path


def test_the_wheel_has_the_page_the_documentation_the_classes_and_the_default_model(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (model,) = [name for name in names if name.endswith(MODEL)]
        assert archive.read(model) == (ROOT / "models" / SHIPPED_MODEL / "1" / "model.onnx").read_bytes()
    for folder in ("service/web", "export/samples"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {str(path.relative_to(ROOT)) for path in files} <= set(names)
    assert {"export/imagenet_classes.txt", "service/py.typed", "resnet_service/py.typed"} <= set(names)
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "service").rglob("*.py")}
    assert modules <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_the_code_comes_from_the_wheel(programs: Path, elsewhere: Path) -> None:
    script = "import service, resnet_service, export, training; print(service.__file__, resnet_service.__file__)"
    found = done(programs / "python", "-c", script, folder=elsewhere)
    assert found.stdout.count(str(programs.parent)) == 2, found.stderr


def test_a_server_answers_a_photo_with_the_model_of_the_wheel(programs: Path, elsewhere: Path) -> None:
    with serving_command([str(programs / "serve-resnet")], folder=elsewhere) as served:
        status, answer = served.ask("POST", "/classify", PHOTO.read_bytes())
        assert (status, answer["model"]["name"]) == (200, SHIPPED_MODEL)
        for path, text in (("/", "<html"), ("/docs", "<html")):
            status, page = served.ask("GET", path)
            assert (status, text in page.lower()) == (200, True)
        assert served.ask("GET", "/swagger-ui/swagger-ui-bundle.js")[0] == 200
        listed = served.ask_admin("GET", "/models")[1]["models"]
        assert [model["modelName"] for model in listed] == [SHIPPED_MODEL]


def test_classify_works_with_the_model_of_the_wheel(programs: Path, elsewhere: Path) -> None:
    found = done(programs / "classify", "--format", "json", "photo.jpg", folder=elsewhere)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["model"]["name"] == SHIPPED_MODEL


def test_the_package_is_imported_and_runs_a_model(programs: Path, elsewhere: Path) -> None:
    model = programs.parent / MODEL
    script = f"from resnet_service import Model; print(Model.load({str(model)!r}).classify('photo.jpg').label)"
    found = done(programs / "python", "-W", "error", "-c", script, folder=elsewhere)
    assert (found.returncode, bool(found.stdout.strip())) == (0, True), found.stderr


@pytest.mark.parametrize("command", ["train-resnet", "export-onnx", "serve-resnet", "classify", "resnet-mcp"])
def test_each_command_explains_itself(programs: Path, elsewhere: Path, command: str) -> None:
    found = done(programs / command, "--help", folder=elsewhere)
    assert (found.returncode, "Usage" in found.stdout or "usage" in found.stdout) == (0, True), found.stderr
