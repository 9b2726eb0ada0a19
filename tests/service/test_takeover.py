"""A worker that takes a new version lets go of the old one: its memory is needed for the next."""

import gc
import hashlib
import weakref
from pathlib import Path

import pytest

from service.app import Parts, create_app
from service.repository import Lineup, ModelFile
from service.settings import Settings
from service.takeover import Takeover
from tests.service.conftest import client_of, picture
from tests.service.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio


async def take_version(number: str, folder: Path, model_file: bytes, parts: Parts) -> None:
    path = write_tiny_model(folder, version=number, content=model_file)
    lineup = Lineup("tiny", (ModelFile("tiny", number, path, hashlib.sha256(model_file).hexdigest()),))
    takeover = Takeover(parts, keeps_files=False)
    assert await takeover.prepare(lineup.files) is None
    assert takeover.take(lineup) is None


@pytest.mark.parametrize("size", [(50, 37), (1500, 1400)])
async def test_the_model_of_the_start_is_freed_when_another_has_taken_its_place(
    tmp_path: Path, model_file: bytes, size: tuple[int, int]
) -> None:
    write_tiny_model(tmp_path, content=model_file)
    app = create_app(Settings(models=tmp_path, engine_threads=1))
    async with client_of(app) as client:
        # A large picture goes by another thread, which may not keep it or its model either.
        assert (await client.post("/classify", content=picture((255, 0, 0), size=size))).status_code == 200
        first = weakref.ref(app.state.parts.registry.default())
        await take_version("2", tmp_path, model_file, app.state.parts)
        assert (await client.post("/classify", content=picture((255, 0, 0)))).json()["model"]["version"] == "2"
        gc.collect()
        assert first() is None
