"""Background work: daemon threads, which do not delay an exit, and tasks whose failures are logged."""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

log = logging.getLogger(__name__)

Result = TypeVar("Result")


async def run_in_daemon_thread(work: Callable[[], Result]) -> Result:
    """Return the result of `work` from a daemon thread: unlike `asyncio.to_thread`, it does not delay an exit."""
    done: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    done.set_running_or_notify_cancel()  # from now on it cannot be cancelled
    threading.Thread(target=run, name="loader", daemon=True).start()
    return await asyncio.wrap_future(done)


class Background:
    """Tasks that are not awaited; a failure is logged and then handled by a callback."""

    def __init__(self, on_failure: Callable[[], None]) -> None:
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()  # the event loop itself keeps no reference

    def start(
        self, work: Coroutine[Any, Any, None], *, on_failure: Callable[[], None] | None = None
    ) -> asyncio.Task[None]:
        """Start a task on the running event loop; `on_failure` is called instead of the common one."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._note_end, on_failure or self._on_failure))
        return task

    def cancel(self) -> None:
        """Cancel every task that still runs."""
        for task in self._tasks:
            task.cancel()

    def _note_end(self, on_failure: Callable[[], None], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task failed: %s", task.get_name(), exc_info=error)
            on_failure()


def act_on_failed_threads(act: Callable[[], None]) -> None:
    """Log every exception that ends a thread of this process, and call `act` in that thread."""

    def note(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_type is SystemExit:
            return
        name = "?" if failure.thread is None else failure.thread.name
        log.error("a thread failed: %s", name, exc_info=failure.exc_value)
        act()

    threading.excepthook = note
