"""Signs of life of a thread: answers when idle, a sensible time when busy."""

import time

from service.batching.heartbeat import Heartbeat


def test_an_idle_thread_that_answers_is_sound_and_one_that_does_not_is_not() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat(10)
    assert heartbeat.is_healthy(12, time.monotonic())
    assert not heartbeat.is_healthy(20, time.monotonic())


def test_a_busy_thread_has_ten_times_what_it_should_take_and_never_less_than_seconds() -> None:
    heartbeat, now = Heartbeat(), time.monotonic()
    for expected_s, fine_s, hanging_s in ((0.001, 5, 7), (3.0, 29, 31)):
        heartbeat.begin(expected_s)
        assert heartbeat.is_healthy(1000, now + fine_s)
        assert not heartbeat.is_healthy(1000, now + hanging_s)
    heartbeat.end()
    assert not heartbeat.is_healthy(1000, now)


def test_the_next_thing_has_its_own_time() -> None:
    heartbeat = Heartbeat()
    heartbeat.begin(0.0)
    began = time.monotonic()
    heartbeat.begin(0.0)
    assert heartbeat.is_healthy(0, began + 5.9)
