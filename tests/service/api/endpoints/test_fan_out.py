"""Many images of one request: all answered, in order, few at a time."""

import asyncio

import pytest

from service.api.endpoints.fan_out import gather_all, gather_results, window_size
from service.errors import BadImage, Overloaded

pytestmark = pytest.mark.anyio


async def test_no_more_than_the_window_are_outstanding_and_the_answers_are_in_order() -> None:
    outstanding, most = 0, 0

    async def ask(number: int) -> int:
        nonlocal outstanding, most
        outstanding += 1
        most = max(most, outstanding)
        for _ in range(number % 3):
            await asyncio.sleep(0)
        outstanding -= 1
        return number * number

    assert await gather_results(20, ask, at_once=4) == [number * number for number in range(20)]
    assert most == 4


async def test_a_failure_takes_only_its_own_place() -> None:
    async def ask(number: int) -> int:
        if number == 1:
            raise BadImage("no")
        return number

    first, second, third = await gather_results(3, ask, at_once=2)
    assert (first, third) == (0, 2)
    assert isinstance(second, BadImage)


async def test_what_finds_no_room_beside_its_own_request_waits_for_it() -> None:
    taken = 0

    async def ask(number: int) -> int:
        nonlocal taken
        if taken == 2:
            raise Overloaded("full")
        taken += 1
        await asyncio.sleep(0)
        taken -= 1
        return number

    assert await gather_results(30, ask, at_once=8) == list(range(30))


async def test_what_finds_no_room_at_all_is_refused() -> None:
    asked = []

    async def ask(number: int) -> int:
        asked.append(number)
        raise Overloaded("full")

    assert all(isinstance(answer, Overloaded) for answer in await gather_results(3, ask, at_once=2))
    assert set(asked) == {0, 1, 2}


async def test_of_a_request_that_needs_every_answer_the_first_failure_ends_the_rest() -> None:
    asked, cancelled = [], []

    async def ask(number: int) -> int:
        asked.append(number)
        if number == 2:
            raise BadImage("no")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    with pytest.raises(BadImage):
        await gather_all(100, ask, at_once=4)
    assert sorted(asked) == [0, 1, 2, 3]
    assert sorted(cancelled) == [0, 1, 3]


async def test_of_a_request_that_needs_every_answer_a_row_without_room_waits_or_ends_it() -> None:
    taken, most = 0, 3

    async def ask(number: int) -> int:
        nonlocal taken
        if taken == most:
            raise Overloaded("full")
        taken += 1
        await asyncio.sleep(0)
        taken -= 1
        return number

    assert await gather_all(30, ask, at_once=8) == list(range(30))
    most = 0
    with pytest.raises(Overloaded):
        await gather_all(30, ask, at_once=8)


def test_a_window_keeps_all_threads_busy_and_leaves_room_for_others() -> None:
    assert window_size(32, 2, 256) == 32
    assert window_size(1, 2, 256) == 4
    assert window_size(32, 2, 8) == 4
    assert window_size(32, 2, 1) == 1
