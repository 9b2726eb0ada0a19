"""Every setting of the server can be found in `.env.example` and reaches the container."""

import re
from pathlib import Path

from service.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[2]
SETTINGS = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields}
FIXED_BY_THE_IMAGE = {"RESNET_MODELS", "RESNET_HOST", "RESNET_PORT", "RESNET_ADMIN_HOST"}
ADMIN_PORT = {"RESNET_ADMIN_PORT"}  # always 8001 inside; PUBLISH_ADMIN is its address outside


def model_names(file: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE))


def test_the_example_names_every_setting_and_no_other() -> None:
    assert model_names(".env.example", r"^# (RESNET_\w+)=") == SETTINGS


def test_compose_hands_on_every_setting_that_the_image_does_not_fix() -> None:
    handed_on = model_names("docker-compose.yml", r"^ +(RESNET_\w+):")
    assert handed_on == SETTINGS - FIXED_BY_THE_IMAGE - ADMIN_PORT


def test_the_image_fixes_the_rest() -> None:
    assert model_names("docker/service.Dockerfile", r"^ +(RESNET_\w+)=") == FIXED_BY_THE_IMAGE


def test_the_example_names_every_variable_of_the_compose_file() -> None:
    files = [file.name for file in ROOT.glob("docker-compose*.yml")]
    assert len(files) == 3
    variables = {name for file in files for name in model_names(file, r"\$\{(\w+):-")}
    assert model_names(".env.example", r"^# ([A-Z_]+)=") - SETTINGS == variables | {"COMPOSE_FILE"}  # compose's own


def test_the_example_puts_keys_where_compose_mounts_them() -> None:
    assert model_names("docker-compose.yml", r"^ +target: (/keys)$") == {"/keys"}
    assert model_names(".env.example", r"^# RESNET_(?:ADMIN|API)_KEYS_FILE=(/keys/\w+)") == {"/keys/admin", "/keys/api"}


def test_the_examples_are_the_defaults_where_there_are_any() -> None:
    text = (ROOT / ".env.example").read_text()
    values = {name.lower(): value for name, value in re.findall(r"^# RESNET_(\w+)=(\S+)", text, re.MULTILINE)}
    examples = Settings.model_validate(values)
    for name, field in Settings.model_fields.items():
        assert field.default in (None, getattr(examples, name)), name
