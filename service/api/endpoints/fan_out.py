"""Many images of one request, a few at a time: one client's hundred images wait in line like everybody's."""

from asyncio import TaskGroup
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from service.errors import Overloaded, ServiceError

_LARGEST_WINDOW = 32  # half of what a process never refuses

Answer = TypeVar("Answer")


def run_windowed(max_batch: int, threads: int, max_waiting: int) -> int:
    """Return how many images of a request may be outstanding at once.

    Enough to keep all threads busy with whole batches; never more than half of what may wait.
    """
    return max(1, min(_LARGEST_WINDOW, 2 * max_batch * threads, max_waiting // 2))


async def gather_results(
    count: int, ask: Callable[[int], Awaitable[Answer]], *, at_once: int
) -> list[Answer | ServiceError]:
    """Return the answer to each of the images 0 to `count - 1`, in order, or the ServiceError why there is none.

    At most `at_once` of them are outstanding. An image that finds no room waits until another of its own request has
    been answered; it is refused only if there is none.
    """
    asking = _Asking(count, ask)
    async with TaskGroup() as group:
        for _ in range(min(at_once, count)):
            group.create_task(asking.work())
    return [asking.answers[number] for number in range(count)]


async def gather_all(count: int, ask: Callable[[int], Awaitable[Answer]], *, at_once: int) -> list[Answer]:
    """As `gather_results`, but the first failure is raised, and with it the rest is given up."""
    asking = _Asking(count, ask, stops_at_failure=True)
    try:
        async with TaskGroup() as group:
            for _ in range(min(at_once, count)):
                group.create_task(asking.work())
    except* ServiceError as failures:
        raise failures.exceptions[0] from None
    return [answer for number in range(count) if not isinstance(answer := asking.answers[number], ServiceError)]


class _Asking(Generic[Answer]):
    def __init__(self, count: int, ask: Callable[[int], Awaitable[Answer]], *, stops_at_failure: bool = False) -> None:
        self._left = deque(range(count))
        self._ask = ask
        self._stops_at_failure = stops_at_failure
        self._working = 0
        self.answers: dict[int, Answer | ServiceError] = {}

    async def work(self) -> None:
        """Ask about one image after the other."""
        self._working += 1
        while self._left:
            number = self._left.popleft()
            try:
                self.answers[number] = await self._ask(number)
            except ServiceError as error:
                if isinstance(error, Overloaded) and self._working > 1:
                    self._left.appendleft(number)
                    break  # whoever is still at work asks again when it has its answer
                if self._stops_at_failure:
                    raise
                self.answers[number] = error.as_answer()
        self._working -= 1
