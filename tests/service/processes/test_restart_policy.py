"""Failures of processes: what counts, for how long, and when there are too many."""

from service.processes.restart_policy import Restarts


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_failure_waits_longer_than_the_one_before_up_to_the_longest_delay() -> None:
    restarts = Restarts((0.0, 1.0, 16.0), Clock())
    delays = []
    for _ in range(5):
        restarts.note_failure()
        delays.append(restarts.delay_s)
    assert delays == [0.0, 1.0, 16.0, 16.0, 16.0]
    assert restarts.are_too_many


def test_a_failure_of_an_hour_ago_does_not_count() -> None:
    clock = Clock()
    restarts = Restarts((0.0, 1.0, 16.0), clock)
    for _ in range(2):
        restarts.note_failure()
    clock.now = 3600.0
    restarts.note_failure()
    assert (restarts.count, restarts.delay_s, restarts.are_too_many) == (1, 0.0, False)


def test_good_service_makes_up_for_all_failures_before() -> None:
    restarts = Restarts((0.0, 1.0, 16.0), Clock())
    for _ in range(20):  # seven workers that hang, each after a while of good service, are no reason to end
        restarts.note_end(was_well=True, was_killed_from_outside=False, was_killed_here=True)
    assert (restarts.count, restarts.are_too_many) == (1, False)
    restarts.note_end(was_well=True, was_killed_from_outside=False, was_killed_here=False)
    assert restarts.count == 0


def test_what_fails_by_itself_counts_and_what_somebody_kills_does_not() -> None:
    restarts = Restarts((0.0, 1.0, 16.0), Clock())
    for killed_here in (True, False, True):
        restarts.note_end(was_well=False, was_killed_from_outside=False, was_killed_here=killed_here)
    assert restarts.are_too_many
    restarts.note_end(was_well=False, was_killed_from_outside=True, was_killed_here=False)
    assert restarts.count == 0
