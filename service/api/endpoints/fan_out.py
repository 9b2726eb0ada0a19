"""Concurrent work on the images of one request, with a limit, so that a large request does not fill the queue."""

from asyncio import TaskGroup
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from service.errors import Overloaded, ServiceError

_LARGEST_WINDOW = 32  # half of the images that a process never refuses

Answer = TypeVar("Answer")


def window_size(max_batch: int, threads: int, max_waiting: int) -> int:
    """Return the number of a request's images that may be outstanding at once.

    It keeps all threads busy with full batches, and is at most 32 and half of the queue.
    """
    return max(1, min(_LARGEST_WINDOW, 2 * max_batch * threads, max_waiting // 2))


async def gather_results(
    count: int, submit: Callable[[int], Awaitable[Answer]], *, at_once: int
) -> list[Answer | ServiceError]:
    """Return the result of `submit` for each of the images 0 to `count - 1`, in order, or its ServiceError.

    At most `at_once` images are outstanding. An image that is refused as Overloaded is submitted again after another
    image of the request has its result; it fails only if no other one is outstanding.
    """
    fan_out = _FanOut(count, submit)
    async with TaskGroup() as group:
        for _ in range(min(at_once, count)):
            group.create_task(fan_out.work())
    return [fan_out.answers[number] for number in range(count)]


async def gather_all(count: int, submit: Callable[[int], Awaitable[Answer]], *, at_once: int) -> list[Answer]:
    """Return the results as `gather_results` does, but raise the first ServiceError and cancel the rest."""
    fan_out = _FanOut(count, submit, stops_at_failure=True)
    try:
        async with TaskGroup() as group:
            for _ in range(min(at_once, count)):
                group.create_task(fan_out.work())
    except* ServiceError as failures:
        raise failures.exceptions[0] from None
    return [answer for number in range(count) if not isinstance(answer := fan_out.answers[number], ServiceError)]


class _FanOut(Generic[Answer]):
    def __init__(
        self, count: int, submit: Callable[[int], Awaitable[Answer]], *, stops_at_failure: bool = False
    ) -> None:
        self._left = deque(range(count))
        self._submit = submit
        self._stops_at_failure = stops_at_failure
        self._working = 0
        self.answers: dict[int, Answer | ServiceError] = {}

    async def work(self) -> None:
        """Submit one image after the other until none is left."""
        self._working += 1
        while self._left:
            number = self._left.popleft()
            try:
                self.answers[number] = await self._submit(number)
            except ServiceError as error:
                if isinstance(error, Overloaded) and self._working > 1:
                    self._left.appendleft(number)
                    break  # another task submits it again after its own image
                if self._stops_at_failure:
                    raise
                self.answers[number] = error.as_answer()
        self._working -= 1
