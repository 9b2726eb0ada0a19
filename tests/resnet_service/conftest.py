"""The fixtures of the service's tests, for the Python package."""

from tests.service.conftest import _own_cache, anyio_backend, app, client, model_file, models, red

__all__ = ["_own_cache", "anyio_backend", "app", "client", "model_file", "models", "red"]
