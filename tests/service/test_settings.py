"""Every knob: its default, its environment variable, its limits."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_by_default_only_this_machine_can_reach_the_server() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.1", 8001)


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_MODELS", "/srv/models")
    monkeypatch.setenv("RESNET_MAX_QUEUE_AGE_S", "2.5")
    settings = Settings()
    assert settings.models == Path("/srv/models")
    assert settings.max_queue_age_s == 2.5


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_PORT", "9000")
    assert Settings(port=9001).port == 9001


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_DEFAULT_MODEL", "")
    monkeypatch.setenv("RESNET_MAX_BATCH", "")
    assert Settings().default_model is None
    assert Settings().max_batch is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "http"),
        ("max_batch", "0"),
        ("engine_threads", "0"),
        ("max_queue", "0"),
        ("max_queue_age_s", "0"),
        ("max_queue_age_s", "nan"),
        ("max_image_bytes", "-1"),
        ("drain_delay_s", "-1"),
        ("drain_timeout_s", "inf"),
        ("providers", "gpu"),
        ("host", ""),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as failure:
        Settings(**{name: value})
    assert failure.value.errors()[0]["loc"] == (name,)


def test_every_setting_explains_itself() -> None:
    assert all(field.description for field in Settings.model_fields.values())
