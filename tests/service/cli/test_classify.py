"""`classify`: the server's answers on the command line."""

import json
import os
import sys
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from service.app import create_app
from service.cli import classify as cli
from service.settings import Settings
from tests.service.conftest import image
from tests.support.model_files.tiny_model import write_tiny_model


def run(*arguments: object, input: bytes | None = None) -> Result:
    command = typer.Typer()
    command.command()(cli.classify)
    return CliRunner().invoke(command, [str(argument) for argument in arguments], input=input)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "red.jpg", tmp_path / "text.jpg", tmp_path / "blue.png"]
    for path, content in zip(paths, (image((255, 0, 0)), b"text", image((0, 0, 255), "PNG")), strict=True):
        path.write_bytes(content)
    return paths


def test_each_file_gets_its_labels(models: Path, files: list[Path]) -> None:
    result = run("--models", models, files[0], files[2])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{files[0]}  (JPEG, 50 x 37)"
    assert lines[1].split()[0] == "red"
    assert lines[6] == f"{files[2]}  (PNG, 50 x 37)"
    assert lines[7].split()[0] == "blue"


def test_one_bad_file_fails_the_command_and_not_the_others(models: Path, files: list[Path]) -> None:
    result = run("--models", models, *files, "/no/such/file.jpg")
    assert result.exit_code == 1
    assert result.stdout.count("JPEG, 50") == result.stdout.count("PNG, 50") == 1
    assert len(result.stderr.splitlines()) == 2
    assert f"{files[1]}: Only JPEG, PNG and WebP" in result.stderr
    assert "/no/such/file.jpg: There is no such file." in result.stderr


def test_json_is_one_object_a_line_with_the_file_it_is_about(models: Path, files: list[Path]) -> None:
    result = run("--models", models, "--format", "json", *files)
    assert result.exit_code == 1
    first, second, third = (json.loads(line) for line in result.stdout.splitlines())
    assert [first["file"], second["file"], third["file"]] == [str(file) for file in files]
    assert first["predictions"][0]["label"] == "red"
    assert (second["error"]["status"], second["error"]["code"]) == (415, "not_an_image")
    assert third["image"] == {"format": "PNG", "width": 50, "height": 37}


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are always UTF-8")
def test_a_name_that_is_not_utf_8_is_no_obstacle(models: Path, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(image((255, 0, 0)))
    result = run("--models", models, "--format", "json", tmp_path)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["file"] == f"{tmp_path}/\ufffd.jpg"


@pytest.mark.anyio
async def test_the_answer_is_the_servers_answer(models: Path, files: list[Path]) -> None:
    app = create_app(Settings(models=models))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a")
    async with app.router.lifespan_context(app), client:
        served = (await client.post("/classify", content=files[0].read_bytes())).json()
    printed = json.loads(run("--models", models, "--format", "json", files[0]).stdout)
    assert printed.pop("file") == str(files[0])
    for answer in (served, printed):
        answer.pop("timings_ms")
    assert printed == served


@pytest.mark.parametrize(("content", "code"), [(b"", "no_file"), (b"\xff\xd8\xff" * 10_000_000, "too_large")])
def test_files_that_the_server_would_refuse_are_refused(
    models: Path, tmp_path: Path, content: bytes, code: str
) -> None:
    path = tmp_path / "file.jpg"
    path.write_bytes(content)
    result = run("--models", models, "--format", "json", path)
    assert json.loads(result.stdout)["error"]["code"] == code


def test_a_folder_stands_for_the_images_in_it_and_below(models: Path, tmp_path: Path) -> None:
    inside = ("b/one.PNG", "b/c d/two.jpeg", "a.webp", "b/notes.txt", ".hidden/three.jpg", "[1].jpg")
    for name in inside:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image((255, 0, 0)))
    result = run("--models", models, "--format", "json", tmp_path / "in", tmp_path / "in" / "[1].jpg")
    names = [json.loads(line)["file"] for line in result.stdout.splitlines()]
    expected = ["[1].jpg", "a.webp", "b/c d/two.jpeg", "b/one.PNG", "[1].jpg"]
    assert names == [str(tmp_path / "in" / name) for name in expected]
    assert result.exit_code == 0


def test_a_pattern_stands_for_the_files_that_fit_it(models: Path, files: list[Path]) -> None:
    result = run("--models", models, "--format", "json", files[0].parent / "*.jpg", files[0].parent / "**" / "bl*")
    names = [json.loads(line)["file"] for line in result.stdout.splitlines()]
    assert names == [str(files[0]), str(files[1]), str(files[2])]


def test_a_pattern_through_folders_gives_each_file_once(models: Path, tmp_path: Path) -> None:
    for name in ("in/a.jpg", "in/b/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image((255, 0, 0)))
    result = run("--models", models, "--format", "json", tmp_path / "in" / "**" / "*")
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [
        str(tmp_path / "in" / "a.jpg"),
        str(tmp_path / "in" / "b" / "c.jpg"),
    ]


def test_a_folder_or_pattern_without_images_is_reported(models: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("--models", models, tmp_path / "empty", tmp_path / "*.jpg")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{tmp_path / 'empty'}: The folder has no JPEG" in result.stderr
    assert f"{tmp_path / '*.jpg'}: There is no such file." in result.stderr


def test_a_dash_is_standard_input(models: Path) -> None:
    result = run("--models", models, "-", input=image((0, 0, 255)))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "-  (JPEG, 50 x 37)"
    assert result.stdout.splitlines()[1].split()[0] == "blue"


def test_many_files_are_answered_in_their_order(models: Path, tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 0, 255), (0, 255, 0)] * 20
    for number, colour in enumerate(colours):
        (tmp_path / f"{number:02}.png").write_bytes(image(colour, "PNG"))
    result = run("--models", models, "--format", "json", "--top-k", 1, tmp_path)
    labels = [json.loads(line)["predictions"][0]["label"] for line in result.stdout.splitlines()]
    assert labels == ["red", "blue", "green"] * 20


def test_as_many_labels_as_requested(models: Path, files: list[Path]) -> None:
    result = run("--models", models, "--top-k", 8, files[0])
    assert len(result.stdout.splitlines()) == 9


def test_a_model_can_be_chosen(tmp_path: Path, files: list[Path], model_file: bytes) -> None:
    for name, version in (("first", "1"), ("second", "2")):
        write_tiny_model(tmp_path / "models", name, version, model_file)
    folder = tmp_path / "models"
    for wanted in ("second", "second:2"):
        result = run("--models", folder, "--model", wanted, "--format", "json", files[0])
        assert json.loads(result.stdout)["model"]["name"] == "second"


def test_any_version_that_lies_there_can_be_chosen(tmp_path: Path, files: list[Path], model_file: bytes) -> None:
    for version in ("1", "2"):
        write_tiny_model(tmp_path / "models", "first", version, model_file)
    for wanted, version in (("first:1", "1"), ("first", "2")):
        result = run("--models", tmp_path / "models", "--model", wanted, "--format", "json", files[0])
        assert json.loads(result.stdout)["model"]["version"] == version


def test_a_name_gives_no_orders_to_the_terminal(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb.png"
    path.write_bytes(image((255, 0, 0)))
    result = run("--models", models, path)
    assert result.stdout.splitlines()[0].endswith(r"a\x1b[31m\nb.png  (JPEG, 50 x 37)")


def test_an_empty_name_of_a_server_is_reported(models: Path, files: list[Path]) -> None:
    result = run("--models", models, "--server", "", files[0])
    assert result.exit_code == 1
    assert "not an address of a server" in result.stderr


def test_the_limit_on_files_can_be_set(
    models: Path, tmp_path: Path, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(red + bytes(21 << 20))
    assert run("--models", models, path).exit_code == 1
    monkeypatch.setenv("RESNET_MAX_IMAGE_BYTES", str(30 << 20))
    assert run("--models", models, path).exit_code == 0


def test_folder_and_model_can_come_from_the_environment(
    tmp_path: Path, files: list[Path], model_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        write_tiny_model(tmp_path / "models", name, "1", model_file)
    monkeypatch.setenv("RESNET_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("RESNET_DEFAULT_MODEL", "second")
    for options, name in (((), "second"), (("--model", "first"), "first")):
        result = run(*options, "--format", "json", files[0])
        assert json.loads(result.stdout)["model"]["name"] == name


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "choose one with --model: first, second"),
        (["--model", "third"], "there is no model 'third' for --model; there are: first, second"),
        (["--model", "first:9"], "first has no version '9'; there is: 1"),
        (["--models", "/nowhere"], "name one with --models"),
    ],
)
def test_without_a_model_one_line_says_what_to_do(
    tmp_path: Path, files: list[Path], model_file: bytes, options: list[str], complaint: str
) -> None:
    for name in ("first", "second"):
        write_tiny_model(tmp_path / "models", name, "1", model_file)
    result = run("--models", tmp_path / "models", *options, files[0])
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("classify: ")
    assert complaint in result.stderr
