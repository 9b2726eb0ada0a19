"""A worker that takes a new version lets go of the old one: its memory is needed for the next."""

import gc
import hashlib
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from service.app import Parts, create_app
from service.inference.registry import Served
from service.model_files.repository import ModelFile, ServingSet, VersionState
from service.processes.model_swap import ModelSwap
from service.settings import Settings
from tests.service.conftest import client_of, image
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio


async def take_version(number: str, folder: Path, model_file: bytes, parts: Parts) -> None:
    path = write_tiny_model(folder, version=number, content=model_file)
    lineup = ServingSet("tiny", (ModelFile("tiny", number, path, hashlib.sha256(model_file).hexdigest()),))
    takeover = ModelSwap(parts, keeps_files=False)
    assert await takeover.prepare(lineup.files) is None
    assert takeover.take(lineup) is None


@pytest.mark.parametrize("size", [(50, 37), (1500, 1400)])
async def test_the_model_of_the_start_is_freed_when_another_has_taken_its_place(
    tmp_path: Path, model_file: bytes, size: tuple[int, int]
) -> None:
    write_tiny_model(tmp_path, content=model_file)
    app = create_app(Settings(models=tmp_path, engine_threads=1))
    async with client_of(app) as client:
        # A large image goes by another thread, which may not keep it or its model either.
        assert (await client.post("/classify", content=image((255, 0, 0), size=size))).status_code == 200
        first = weakref.ref(app.state.parts.registry.default())
        await take_version("2", tmp_path, model_file, app.state.parts)
        assert (await client.post("/classify", content=image((255, 0, 0)))).json()["model"]["version"] == "2"
        gc.collect()
        assert first() is None


async def test_a_process_forms_batches_of_the_size_that_all_agree_on(tmp_path: Path, model_file: bytes) -> None:
    path, digest = write_tiny_model(tmp_path, content=model_file), hashlib.sha256(model_file).hexdigest()
    app = create_app(Settings(models=tmp_path, engine_threads=1))
    async with client_of(app) as client:
        takeover = ModelSwap(app.state.parts, keeps_files=False)
        model = app.state.parts.registry.default()
        model.max_batch, measured_s = 8, model.longest_batch_s
        file = ModelFile("tiny", "1", path, digest, max_batch=32)
        lineup = ServingSet("tiny", (file,), (VersionState("tiny", "1", "READY"),))
        assert takeover.take(lineup) is None
        assert (await client.get("/models")).json()["models"][0]["max_batch"] == 32
        assert model.longest_batch_s == pytest.approx(4 * measured_s), "else a full batch is taken for one that hangs"
        assert takeover.measured() == {digest: 32}


async def test_whatever_breaks_while_a_version_is_loaded_is_answered(
    tmp_path: Path, model_file: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_model(tmp_path, content=model_file)
    app = create_app(Settings(models=tmp_path, engine_threads=1))

    def breaks(_: ModelFile) -> Served:
        raise MemoryError("nothing left")

    async with client_of(app):
        takeover = ModelSwap(replace(app.state.parts, load=breaks), keeps_files=False)
        failure = await takeover.prepare([ModelFile("tiny", "2", tmp_path / "none", "0" * 64)])
    assert failure == "a process failed to load it; the server's log has the cause"
    assert "nothing left" in caplog.text
