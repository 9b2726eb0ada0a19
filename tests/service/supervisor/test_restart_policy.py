"""Failures of workers: what counts, for how long, and when there are too many."""

import signal

from service.supervisor.restart_policy import RestartPolicy, WorkerExit

CRASHED = WorkerExit(70, was_loaded=True, healthy_s=0.0, was_killed_by_supervisor=False)
HUNG_AT_ONCE = WorkerExit(-signal.SIGKILL, was_loaded=True, healthy_s=0.0, was_killed_by_supervisor=True)
HUNG_LATER = WorkerExit(-signal.SIGKILL, was_loaded=True, healthy_s=10.0, was_killed_by_supervisor=True)
CRASHED_LATER = WorkerExit(-signal.SIGSEGV, was_loaded=True, healthy_s=10.0, was_killed_by_supervisor=False)
KILLED_EXTERNALLY = WorkerExit(-signal.SIGKILL, was_loaded=True, healthy_s=0.0, was_killed_by_supervisor=False)
KILLED_WHILE_LOADING = WorkerExit(-signal.SIGKILL, was_loaded=False, healthy_s=0.0, was_killed_by_supervisor=False)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def policy() -> RestartPolicy:
    return RestartPolicy((0.0, 1.0, 16.0), Clock())


def test_each_failure_waits_longer_than_the_one_before_up_to_the_longest_delay() -> None:
    restarts = policy()
    delays = []
    for _ in range(5):
        restarts.note_failure()
        delays.append(restarts.delay_s)
    assert delays == [0.0, 1.0, 16.0, 16.0, 16.0]


def test_a_failure_of_an_hour_ago_does_not_count() -> None:
    clock = Clock()
    restarts = RestartPolicy((0.0, 1.0, 16.0), clock)
    for _ in range(2):
        restarts.note_failure()
    clock.now = 3600.0
    assert restarts.delay_after(CRASHED, others_serve=False) == 0.0
    assert restarts.failures == 1


def test_too_many_failures_end_the_server_unless_others_serve() -> None:
    restarts = policy()
    assert [restarts.delay_after(CRASHED, others_serve=False) for _ in range(3)] == [0.0, 1.0, None]
    assert restarts.delay_after(CRASHED, others_serve=True) == 16.0


def test_good_service_clears_all_failures_before() -> None:
    restarts = policy()
    for _ in range(20):  # workers that hang, each after a while of good service, are no reason to end
        assert restarts.delay_after(HUNG_LATER, others_serve=False) == 0.0
    assert restarts.failures == 1
    assert restarts.delay_after(CRASHED_LATER, others_serve=False) == 0.0
    assert restarts.failures == 0


def test_failures_count_and_external_kills_do_not() -> None:
    restarts = policy()
    delays = [restarts.delay_after(worker_exit, others_serve=True) for worker_exit in (HUNG_AT_ONCE, CRASHED)]
    assert delays == [0.0, 1.0]
    assert restarts.delay_after(KILLED_EXTERNALLY, others_serve=True) == 0.0
    assert restarts.failures == 0


def test_a_worker_that_is_killed_before_it_has_loaded_counts_as_a_failure() -> None:
    restarts = policy()
    restarts.delay_after(KILLED_WHILE_LOADING, others_serve=True)
    assert restarts.failures == 1
