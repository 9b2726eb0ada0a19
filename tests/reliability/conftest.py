"""The fixtures of the service's tests."""

from tests.service.conftest import _own_cache, anyio_backend, client, model_file, models, red

__all__ = ["_own_cache", "anyio_backend", "client", "model_file", "models", "red"]
