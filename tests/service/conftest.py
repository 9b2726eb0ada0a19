"""What most tests of the service share: the tiny model on disk, and the application around it without a socket."""

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.support.model_files.tiny_model import tiny_model, write_tiny_model


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def model_file() -> bytes:
    return tiny_model()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, model_file: bytes) -> Path:
    """A folder with the tiny model, version 1."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder, content=model_file)
    return folder


@pytest.fixture(scope="session")
def red() -> bytes:
    """A JPEG of 50 x 37 red pixels."""
    return image((255, 0, 0))


def image(colour: tuple[int, int, int], image_format: str = "JPEG", size: tuple[int, int] = (50, 37)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, image_format)
    return content.getvalue()


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start an application, and end it after the block."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        yield client


@pytest.fixture
async def app(models: Path) -> AsyncIterator[FastAPI]:
    """The public application, started."""
    app = create_app(Settings(models=models, max_image_bytes=100_000, engine_threads=1))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        yield client
