"""Who may still come in: by number, by age, and less once a queue stays filled."""

import math

import pytest

from service.batching.load_shedding import LoadShedder, QueueLimits
from service.errors import Expired, Overloaded

SECONDS_PER_IMAGE = 0.02
MAX_AGE_S = 0.25


@pytest.fixture
def room() -> LoadShedder:
    room = LoadShedder(QueueLimits(1000, MAX_AGE_S))
    for _ in range(200):
        room.note_batch(SECONDS_PER_IMAGE, 1)
    return room


def is_let_in(
    room: LoadShedder, now: float, waiting: int, outstanding: int | None = None, seconds_left: float = math.inf
) -> bool:
    try:
        room.check(
            now,
            waiting=waiting,
            outstanding=waiting + 2 if outstanding is None else outstanding,
            threads=2,
            is_idle=False,
            seconds_left=seconds_left,
        )
    except (Overloaded, Expired):
        return False
    return True


def test_a_burst_may_fill_the_queue_up_to_its_age(room: LoadShedder) -> None:
    assert is_let_in(room, 0.0, waiting=0)
    assert is_let_in(room, 0.01, waiting=20), "its answer comes after 0.22 to 0.24 s"
    assert not is_let_in(room, 0.02, waiting=22)


def test_a_queue_that_stays_filled_is_kept_short_until_it_was_nearly_empty(room: LoadShedder) -> None:
    assert is_let_in(room, 0.0, waiting=0)
    for moment in range(1, 30):  # a flood: whenever a place is free, somebody takes it
        is_let_in(room, moment / 100, waiting=20)
    assert not is_let_in(room, 0.3, waiting=20)
    assert not is_let_in(room, 0.4, waiting=12)
    assert is_let_in(room, 0.5, waiting=8)
    assert not is_let_in(room, 0.6, waiting=12), "a queue that is shorter is not yet empty"
    assert is_let_in(room, 0.7, waiting=1)
    assert is_let_in(room, 0.71, waiting=20), "and then a burst is welcome again"


def test_a_batch_lasts_a_tenth_of_a_second_at_most_or_a_fifth_of_the_age_limit() -> None:
    patient, impatient = LoadShedder(QueueLimits(100, 5.0)), LoadShedder(QueueLimits(100, 0.25))
    assert patient.largest_batch() > 1000  # before anything is known
    for room, largest in ((patient, 4), (impatient, 2)):
        room.note_batch(0.42, 2)  # counts for a tenth: 21 ms an image
        assert room.largest_batch() == largest
        room.note_batch(10.0, 1)
        assert room.largest_batch() == 1


def test_whoever_finds_nothing_before_it_is_always_let_in(room: LoadShedder) -> None:
    assert is_let_in(room, 100.0, waiting=0, outstanding=0)


def test_a_number_that_is_never_refused_is_not_even_in_a_flood() -> None:
    room = LoadShedder(QueueLimits(1000, MAX_AGE_S, never_refused=64))
    for _ in range(200):
        room.note_batch(SECONDS_PER_IMAGE, 1)
    for moment in range(1, 100):
        assert is_let_in(room, moment / 100, waiting=61, outstanding=63)
    assert not is_let_in(room, 1.0, waiting=62, outstanding=64)


def test_a_clients_limit_has_to_hold_the_batch_that_runs_what_waits_and_its_own_batch() -> None:
    room = LoadShedder(QueueLimits(1000, 5.0))
    for _ in range(200):
        room.note_batch(0.1, 5)
    assert is_let_in(room, 0.0, waiting=3, seconds_left=0.21)
    assert not is_let_in(room, 0.0, waiting=3, seconds_left=0.19)
    assert is_let_in(room, 0.0, waiting=14, seconds_left=0.27), "14 images of 20 ms on two threads, and its own"
    assert not is_let_in(room, 0.0, waiting=14, seconds_left=0.25)
    assert is_let_in(room, 0.0, waiting=0, outstanding=0, seconds_left=0.001)
    assert room.latest_start(7.0) == pytest.approx(6.9)


def test_an_idle_thread_has_no_batch_to_end_first() -> None:
    room = LoadShedder(QueueLimits(1000, 5.0))
    for _ in range(200):
        room.note_batch(0.04, 1)
    limits = {"waiting": 0, "outstanding": 1, "threads": 2, "seconds_left": 0.05}
    room.check(0.0, is_idle=True, **limits)
    with pytest.raises(Expired):
        room.check(0.0, is_idle=False, **limits)
