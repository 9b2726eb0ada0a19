"""Tasks and threads that nobody awaits: their failures are logged, and acted on."""

import asyncio
import threading

import pytest

from service.system.background_tasks import Background, act_on_failed_threads

pytestmark = pytest.mark.anyio


async def fail() -> None:
    raise ValueError("no answer")


async def test_a_task_that_fails_is_logged_and_acted_on(caplog: pytest.LogCaptureFixture) -> None:
    acted, otherwise = asyncio.Event(), asyncio.Event()
    background = Background(acted.set)
    background.start(fail())
    await asyncio.wait_for(acted.wait(), 5)
    assert "no answer" in caplog.text
    background.start(fail(), on_failure=otherwise.set)
    await asyncio.wait_for(otherwise.wait(), 5)


async def test_a_task_that_ends_well_or_is_cancelled_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[None] = []
    background = Background(lambda: failures.append(None))
    well, waiting = background.start(asyncio.sleep(0)), background.start(asyncio.sleep(1000))
    await well
    background.cancel()
    await asyncio.wait((waiting,))
    assert waiting.cancelled()
    assert (failures, caplog.text) == ([], "")


def test_a_thread_that_fails_is_logged_and_acted_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # whatever is set here ends with this test
    failures: list[str] = []
    act_on_failed_threads(lambda: failures.append(threading.current_thread().name))
    thread = threading.Thread(target=lambda: 1 // 0, name="engine-0")
    thread.start()
    thread.join()
    assert failures == ["engine-0"]
    assert "engine-0" in caplog.text and "ZeroDivisionError" in caplog.text
