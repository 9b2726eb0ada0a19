"""The flags of `serve-resnet`: every text is a value of its setting, and every mistake is one line."""

from pathlib import Path

import pytest

from service.flags import flag_of, read_settings
from service.settings import Settings


def test_every_setting_has_a_flag() -> None:
    values = {name: str(field.default or 1) for name, field in Settings.model_fields.items()}
    values |= {"trusted_hosts": "example.org", "cors_origins": "*", "trusted_proxies": "::1"}
    arguments = [argument for name, value in values.items() for argument in (flag_of(name), value)]
    assert read_settings(arguments) == Settings(**values)


def test_a_flag_wins_over_its_variable_and_the_last_flag_over_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_PORT", "9000")
    monkeypatch.setenv("RESNET_HOST", "")
    assert (read_settings([]).port, read_settings([]).host) == (9000, "127.0.0.1")
    assert read_settings(["--port", "9001", "--port=9002"]).port == 9002


@pytest.mark.parametrize("text", ["None", "null", "[a]", '{"a": 1}', '"quoted"', "a,b", " spaced ", "100%", "a=b"])
def test_a_text_is_taken_as_it_is_and_never_as_json_or_as_nothing(text: str) -> None:
    settings = read_settings(["--models", text, f"--model-name={text}"])
    assert (settings.models, settings.model_name) == (Path(text), text)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--host=", "--host (RESNET_HOST) must be a text that is not empty; it is ''"),
        ("--max-batch=None", "--max-batch (RESNET_MAX_BATCH) must be a whole number from 1 to 1024; it is 'None'"),
        ("--drain-delay-s=-1", "--drain-delay-s (RESNET_DRAIN_DELAY_S) must be a number from 0 to 600; it is '-1'"),
        (
            "--providers=gpu",
            "--providers (RESNET_PROVIDERS) must be one of auto, tensorrt, cuda, openvino, cpu; it is 'gpu'",
        ),
        (
            "--trusted-proxies=proxy",
            "--trusted-proxies (RESNET_TRUSTED_PROXIES) must be addresses or networks with commas, "
            "as in 10.0.0.0/8,192.0.2.1; it is 'proxy'",
        ),
        ("--model-store", "there is no option --model-store; use --models"),
    ],
)
def test_an_error_that_an_operator_can_fix_is_one_line(argument: str, line: str) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings([argument])
    assert end.value.code == f"serve-resnet: {line}"  # Python prints a text and exits with 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--por", "9"], "there is no option --por; use --port"),
        (["--max_queue=9"], "there is no option --max_queue; use --max-queue"),
        (["--turbo"], "there is no option --turbo; serve-resnet --help lists the options"),
        (["extra"], "unexpected argument: extra; serve-resnet --help lists the options"),
        (["--port"], "argument --port: expected one argument; serve-resnet --help lists the options"),
    ],
)
def test_an_argument_that_is_no_flag_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings(arguments)
    assert (end.value.code, capsys.readouterr().err) == (2, f"serve-resnet: {line}\n")
