"""`serve-resnet` as a command: its flags, and one clear line for every start that cannot be."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "service", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_line(result: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("serve-resnet: ")
    for word in words:
        assert word in line


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_every_setting_has_a_flag_with_its_variable_and_its_default() -> None:
    text = " ".join(run("--help", COLUMNS="200").stdout.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert f"RESNET_{name.upper()}" in text
        if field.default is not None:
            assert f"[default: {field.default}]" in text


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("--port", "http", "a whole number from 0 to 65535"),
        ("--max-batch", "0", "a whole number from 1 to 1024"),
        ("--max-queue-age-s", "nan", "a number above 0 to 600"),
        ("--providers", "gpu", "one of auto, tensorrt, cuda, openvino, cpu"),
        ("--host", "", "a text that is not empty"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_line_that_says_what_is_wanted(flag: str, value: str, wanted: str) -> None:
    assert_one_line(run(flag, value), f"{flag} (", f"must be {wanted}; it is {value!r}")


def test_a_variable_that_makes_no_sense_is_one_line() -> None:
    assert_one_line(run(RESNET_MAX_QUEUE="many"), "RESNET_MAX_QUEUE", "'many'")


def test_a_port_in_use_is_one_line(models: Path, taken: int) -> None:
    assert_one_line(run("--models", models, "--port", taken), str(taken), "in use", "--port")


def test_an_admin_port_in_use_is_one_line(models: Path, taken: int) -> None:
    assert_one_line(run("--models", models, "--port", 0, "--admin-port", taken), str(taken), "in use", "--admin-port")


def test_an_address_of_another_machine_is_one_line(models: Path) -> None:
    result = run("--models", models, "--host", "192.0.2.1", "--port", 0)
    assert_one_line(result, "192.0.2.1 is not an address of this machine", "--host")
    assert "in use" not in result.stderr


@pytest.mark.parametrize("host", ["300.1.1.1", "no such host", "a" * 300])
def test_an_address_that_does_not_exist_is_one_line(host: str) -> None:
    assert_one_line(run("--host", host, "--port", 0), "--host")


def test_no_model_is_one_line(tmp_path: Path) -> None:
    assert_one_line(run("--models", tmp_path, "--port", 0, "--admin-port", 0), "there is no model in")


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    assert_one_line(run("--models", tmp_path / "none", "--port", 0, "--admin-port", 0), "--models")


def test_a_broken_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x08\x0agarbage")
    assert_one_line(run("--models", tmp_path, "--port", 0, "--admin-port", 0), str(path))


def test_an_unknown_default_model_is_one_line(models: Path) -> None:
    result = run("--models", models, "--default-model", "other", "--port", 0, "--admin-port", 0)
    assert_one_line(result, "'other'", "tiny")


def test_a_name_for_a_folder_of_models_is_refused(models: Path) -> None:
    result = run("--models", models, "--model-name", "mine", "--port", 0, "--admin-port", 0)
    assert_one_line(result, "--model-name mine", "single model", str(models))


def test_the_help_lists_the_choices() -> None:
    text = " ".join(run("--help", COLUMNS="200").stdout.split())
    assert "--providers auto|tensorrt|cuda|openvino|cpu " in text
    assert "--log auto|json|text|off " in text


def test_an_unknown_flag_is_a_usage_error() -> None:
    assert run("--turbo").returncode == 2


@pytest.mark.parametrize(
    ("flag", "ours"),
    [
        ("--model-repository", "--models"),
        ("--model-repository=/models", "--models"),
        ("--model_dir", "--models"),
        ("--model-store", "--models"),
        ("--model_name", "--model-name"),
        ("--http-port", "--port"),
        ("--http-address", "--host"),
        ("--metrics-port=8002", "--admin-port"),
    ],
)
def test_a_flag_of_another_server_is_refused_with_the_name_of_ours(flag: str, ours: str) -> None:
    assert_one_line(run(flag, "value"), f"there is no option {flag.partition('=')[0]}; use {ours}")
