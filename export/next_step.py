"""The commands to type after an export, with the real paths, as seen from the current folder."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from export.model_file import MODEL_FILE

NEXT_COMMAND = "RESNET_NEXT_COMMAND"  # environment: what to say instead, in a container, whose paths are its own
_SERVED_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def next_steps(file: Path) -> list[str]:
    """Return one line for each command that can be typed now."""
    if instead := os.environ.get(NEXT_COMMAND):
        return [f"next: {instead}"]
    name, version = file.parent.parent.name, file.parent.name
    if file.name == MODEL_FILE and _SERVED_NAME.fullmatch(name) and _VERSION.fullmatch(version):
        models = str(file.parent.parent.parent)
        return [
            f"next: {typed('serve-resnet', '--models', models, '--default-model', name)}",
            f"  or: {typed('classify', '--models', models, '--model', name, 'photo.jpg')}",
        ]
    return [
        f"next: {typed('export-onnx', 'check', str(file))}",
        f"to serve it, put it at models/<name>/<version>/{MODEL_FILE}; without --output it is written there",
    ]


def typed(command: str, *words: str) -> str:
    """Return a command of this project as it is typed from the current folder."""
    return f"{_program(command)} {shlex.join(words)}"


def _program(command: str) -> str:
    """Return how this installation's command is typed: by its name where that is enough, else by its path."""
    path = Path(sys.executable).parent / command
    found = shutil.which(command)
    if not path.is_file() or (found is not None and Path(found).absolute() == path.absolute()):
        return command
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(shown))
