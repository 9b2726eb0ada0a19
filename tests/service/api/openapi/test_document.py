"""Whatever fits the OpenAPI document, and whatever does not: no 5xx, and no answer that the document does not know."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from service.http_server.client_timeouts import ClientTimeouts
from service.http_server.server import Drain, make_server
from service.settings import Settings
from tests.service.conftest import image

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
IMAGES = st.sampled_from([image((200, 30, 90), kind) for kind in ("JPEG", "PNG", "WEBP")])
BODIES = IMAGES | IMAGES.map(lambda content: content[: len(content) // 2]) | st.binary(max_size=200)


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Run an application in a thread of this process, and yield where it listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = make_server(app, Drain(0, 1), ClientTimeouts())
    is_up, failures = threading.Event(), []

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            is_up.set()
            await server.serve([listener])

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as failure:
            failures.append(failure)
        is_up.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_up.wait(60) and not failures
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not failures


@pytest.fixture
def schema(models: Path) -> Iterator[Any]:
    for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream"):
        schemathesis.openapi.media_type(kind, BODIES)
    with listening(create_app(Settings(models=models, engine_threads=1))) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def cases_that_passed(schema: Any, most: int) -> int:
    """Try up to so many cases of each operation and kind, and return how many there were."""
    passed = 0
    for found in schema.get_all_operations():
        for mode in GenerationMode:
            strategy = found.ok().as_strategy(generation_mode=mode)

            @hypothesis.settings(
                max_examples=most,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(case=strategy)
            def holds(case: Any) -> None:
                nonlocal passed
                case.call_and_validate(checks=CHECKS)
                passed += 1

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing to get wrong in this operation
                holds()
    return passed


def test_a_sample_of_what_the_document_allows_and_forbids_is_answered_as_it_says(schema: Any) -> None:
    assert cases_that_passed(schema, 3) >= 30


@pytest.mark.long
@pytest.mark.timeout(900)
def test_thousands_of_cases_are_answered_as_the_document_says(schema: Any) -> None:
    assert cases_that_passed(schema, 120) >= 2000
