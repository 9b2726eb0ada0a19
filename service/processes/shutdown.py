"""The end of all workers: told to stop, told to hurry if their operator is impatient, killed if they take too long."""

import asyncio
import contextlib
from collections.abc import Callable, Collection

from service.processes.worker_handle import WorkerHandle


async def end_all(
    workers: Callable[[], Collection[WorkerHandle]], *, longest_s: float, hurry: asyncio.Event, all_gone: asyncio.Event
) -> None:
    """Let every worker finish what it has accepted; kill what has not ended in time."""
    if not workers():
        all_gone.set()
    order_all(workers(), "stop")
    hurrying = asyncio.create_task(_pass_on(hurry, workers))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(all_gone.wait(), longest_s)
    hurrying.cancel()
    for worker in workers():
        worker.kill()


async def _pass_on(hurry: asyncio.Event, workers: Callable[[], Collection[WorkerHandle]]) -> None:
    await hurry.wait()
    order_all(workers(), "hurry")


def order_all(workers: Collection[WorkerHandle], order: str) -> None:
    """Give all workers an order."""
    for worker in workers:
        worker.order(order)
