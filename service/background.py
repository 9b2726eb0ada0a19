"""Work beside the event loop that nobody has to wait for at the end."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_a_thread(work: Callable[[], Result]) -> Result:
    """As asyncio.to_thread, but in a daemon: a process that is told to stop does not wait for it."""
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
