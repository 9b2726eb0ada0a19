"""A worker that swaps a model frees the old one: its memory is needed for the next."""

import gc
import hashlib
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from service.app import create_app
from service.inference.registry import ServedModel
from service.lifespan import AppComponents
from service.model_files.repository import ModelFile, ServingSet, VersionState
from service.settings import Settings
from service.worker.model_swap import ModelSwap
from tests.service.conftest import client_of, image
from tests.support.model_files.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio


async def take_version(number: str, folder: Path, model_file: bytes, components: AppComponents) -> None:
    path = write_tiny_model(folder, version=number, content=model_file)
    serving_set = ServingSet("tiny", (ModelFile("tiny", number, path, hashlib.sha256(model_file).hexdigest()),))
    swap = ModelSwap(components, stores_copies=False)
    assert await swap.prepare(serving_set.files) is None
    assert swap.commit(serving_set) is None


@pytest.mark.parametrize("size", [(50, 37), (1500, 1400)])
async def test_the_model_of_the_start_is_freed_when_another_has_taken_its_place(
    tmp_path: Path, model_file: bytes, size: tuple[int, int]
) -> None:
    write_tiny_model(tmp_path, content=model_file)
    app = create_app(Settings(models=tmp_path, engine_threads=1))
    async with client_of(app) as client:
        # A large image goes by another thread, which may not keep it or its model either.
        assert (await client.post("/classify", content=image((255, 0, 0), size=size))).status_code == 200
        first = weakref.ref(app.state.components.registry.default())
        await take_version("2", tmp_path, model_file, app.state.components)
        assert (await client.post("/classify", content=image((255, 0, 0)))).json()["model"]["version"] == "2"
        gc.collect()
        assert first() is None


async def test_a_process_forms_batches_of_the_size_that_all_agree_on(tmp_path: Path, model_file: bytes) -> None:
    path, digest = write_tiny_model(tmp_path, content=model_file), hashlib.sha256(model_file).hexdigest()
    app = create_app(Settings(models=tmp_path, engine_threads=1))
    async with client_of(app) as client:
        swap = ModelSwap(app.state.components, stores_copies=False)
        model = app.state.components.registry.default()
        model.max_batch, measured_s = 8, model.longest_batch_s
        file = ModelFile("tiny", "1", path, digest, max_batch=32)
        serving_set = ServingSet("tiny", (file,), (VersionState("tiny", "1", "READY"),))
        assert swap.commit(serving_set) is None
        assert (await client.get("/models")).json()["models"][0]["max_batch"] == 32
        assert model.longest_batch_s == pytest.approx(4 * measured_s), "else a full batch is taken for one that hangs"
        assert swap.max_batches() == {digest: 32}


async def test_whatever_breaks_while_a_version_is_loaded_is_answered(
    tmp_path: Path, model_file: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_model(tmp_path, content=model_file)
    app = create_app(Settings(models=tmp_path, engine_threads=1))

    def breaks(_: ModelFile) -> ServedModel:
        raise MemoryError("nothing left")

    async with client_of(app):
        swap = ModelSwap(replace(app.state.components, load=breaks), stores_copies=False)
        failure = await swap.prepare([ModelFile("tiny", "2", tmp_path / "none", "0" * 64)])
    assert failure == "a process failed to load it; the server's log has the cause"
    assert "nothing left" in caplog.text
