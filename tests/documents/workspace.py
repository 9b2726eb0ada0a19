"""A copy of the repository as a reader has it after a clone, with its own home, and photos to try things with.

`make` finds everything installed there: `.venv/bin` has the project's commands, run by the Python of the tests.
`pip` installs into a virtual environment of its own.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from PIL import Image

from tests.containers.engine import base_image
from tests.documents.blocks import ROOT
from tests.support.servers.served import free_port

PHOTO = ROOT / "export" / "samples" / "fruit.jpg"
STAMPS = (".serve", ".export", ".develop", ".docs")
_LINKED = {".onnx", ".safetensors", ".png", ".jpg"}  # large, and never changed in place
_SCRIPT = """#!/bin/sh
exec {python} -c 'import sys; sys.argv[0] = "{name}"; from {module} import {function}; sys.exit({function}())' "$@"
"""
_PIP = """#!/bin/sh
set -e
[ -d {folder} ] || {python} -m venv {folder}
exec {folder}/bin/python -m pip "$@"
"""
_DOCKER = """#!/bin/sh
# The base image of the tests, layers that are built before compose needs them, and docker-compose 1.29 as a stand-in.
build() {{ {docker} build --network host --build-arg "BASE_IMAGE=$BASE_IMAGE" "$@"; }}
case "$1" in
  build) shift; build "$@"; exit ;;
  compose)
    build --quiet -f docker/service.Dockerfile . >/dev/null
    {docker} compose version >/dev/null 2>&1 || {{ shift; exec docker-compose "$@"; }} ;;
esac
exec {docker} "$@"
"""


def copy_of_the_repository(folder: Path) -> Path:
    """Write what git tracks or may come to track into a new folder."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    for name in names.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _place(ROOT / name, folder / name)
    return folder


def _place(source: Path, target: Path) -> None:
    if source.suffix in _LINKED:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system
            pass
    shutil.copy2(source, target)


def install(folder: Path) -> None:
    """Put the commands of this project where `make install` would put them."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, place in scripts.items():
        module, function = place.split(":")
        _write_command(commands / name, _SCRIPT, name=name, module=module, function=function)
    _write_command(commands / "python", '#!/bin/sh\nexec {python} "$@"\n')
    _write_command(commands / "pytest", '#!/bin/sh\nexec {python} -m pytest "$@"\n')
    _write_command(commands / "pip", _PIP, folder=folder / ".venv-of-pip")
    if docker := shutil.which("docker"):
        _write_command(commands / "docker", _DOCKER, docker=docker)
    for stamp in STAMPS:
        (folder / ".venv" / stamp).touch()


def _write_command(path: Path, text: str, **words: object) -> None:
    path.write_text(text.format(python=sys.executable, **words))
    path.chmod(0o755)


def environment_of(folder: Path, home: Path) -> dict[str, str]:
    """Return the variables of a shell in that folder: a home of its own, no settings, no published weights."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RESNET_", "PYTEST_"))}
    home.mkdir(exist_ok=True)
    (home / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")  # an error of the service fails the block
    return ours | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "RESNET_PORT": "0",
        "RESNET_ADMIN_PORT": "0",
        "RESNET_PROCESSES": "1",
        "RESNET_WEIGHTS_MIRROR": f"http://127.0.0.1:{free_port()}",  # where nothing listens
        "PUBLISH_PORT": str(free_port()),
        "BASE_IMAGE": base_image(),
        "COMPOSE_PROJECT_NAME": f"documents{os.getpid()}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def write_photos(folder: Path) -> None:
    """Write the images that the documents speak of."""
    photo = Image.open(PHOTO)
    for name in ("photo.jpg", "another.png", "a.jpg", "b.jpg", "more/photo.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        photo.save(folder / name)
    for position, label in enumerate(("cat", "dog", "rabbit")):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(8):
            _part(photo, position, number).save(folder / "images" / label / f"{number}.jpg")


def _part(photo: Image.Image, position: int, number: int) -> Image.Image:
    """Return an image of a class: a part of the photo in its colour."""
    left, top = 20 * number, 10 * number
    part = photo.convert("RGB").crop((left, top, left + 120, top + 120))
    bands = list(part.split())
    bands[position] = bands[position].point(lambda value: min(255, value + 90))
    return Image.merge("RGB", bands)
