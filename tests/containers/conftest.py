"""The image, built once, and a photo."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.containers.engine import IMAGE, base_image, run


@pytest.fixture(scope="session")
def image() -> str:
    """The image, built as a reader of the Dockerfile would build it."""
    base = f"BASE_IMAGE={base_image()}"
    run(
        "docker", "build", "--network", "host", "--build-arg", base, "-f", "docker/service.Dockerfile", "-t", IMAGE, "."
    )
    return IMAGE


@pytest.fixture(scope="session")
def photo() -> bytes:
    waves = np.add.outer(np.sin(np.linspace(0, 9, 375)), np.cos(np.linspace(0, 7, 500)))[..., None]
    pixels = (127 + 60 * waves * np.array([1.0, 0.6, -0.8])).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
