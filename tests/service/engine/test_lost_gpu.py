"""What the server does when its GPU answers nothing any more: it says so, and ends to be started again."""

import queue

import pytest

from service import lifespan
from service.errors import NotReady
from service.http.readiness import Readiness
from service.settings import Settings


def test_a_lost_gpu_makes_the_server_unready_and_then_ends_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    readiness, statuses = Readiness("ready"), queue.SimpleQueue[int]()

    def leave(status: int) -> None:
        with pytest.raises(NotReady, match="GPU has failed"):
            readiness.check_ready()
        statuses.put(status)

    monkeypatch.setattr(lifespan.os, "_exit", leave)
    monkeypatch.setattr(lifespan, "_LAST_RESPONSES_S", 0.0)
    lifespan._engine_options(Settings(), readiness).on_device_lost()
    assert statuses.get(timeout=10) == 70
    assert caplog.messages == ["the GPU does not respond; exiting with status 70 for a restart"]


def test_the_readiness_message_names_what_takes_long_at_the_start() -> None:
    readiness = Readiness()
    host = lifespan._engine_options(Settings(), readiness)
    host.report("building engines: 40 s so far")
    with pytest.raises(NotReady, match=r"still loading its models \(building engines: 40 s so far\); try again soon"):
        readiness.check_ready()
    host.report(None)
    with pytest.raises(NotReady, match="still loading its models; try again soon"):
        readiness.check_ready()
