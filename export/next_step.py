"""The commands that follow an export, with real paths relative to the current folder."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from service.model_files.repository import MODEL_FILE, MODEL_NAME, MODEL_VERSION

NEXT_COMMAND = "RESNET_NEXT_COMMAND"  # environment: the text to print instead, for a container with other paths


def next_steps(file: Path) -> list[str]:
    """Return one line for each possible next command."""
    if instead := os.environ.get(NEXT_COMMAND):
        return [f"next: {instead}"]
    name, version = file.parent.parent.name, file.parent.name
    if file.name == MODEL_FILE and MODEL_NAME.fullmatch(name) and MODEL_VERSION.fullmatch(version):
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
    """Return a command of this project as a user types it in the current folder."""
    return f"{_program(command)} {shlex.join(words)}"


def _program(command: str) -> str:
    """Return how this installation's command is typed: by its name if the shell finds it, else by its path."""
    path = Path(sys.executable).parent / command
    found = shutil.which(command)
    if not path.is_file() or (found is not None and Path(found).absolute() == path.absolute()):
        return command
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(shown))
