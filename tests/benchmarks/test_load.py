"""The load generator against servers with known answers."""

import threading
from collections.abc import Callable

import pytest

from benchmarks.fake_server import QUESTION, RIGHT, WRONG, answer, fake_server
from benchmarks.serving.clients import load
from benchmarks.serving.clients.figures import BROKEN, Outcome, Stage
from benchmarks.serving.clients.load import closed_loop, open_loop

REFUSAL = answer(b"{}", "503 Service Unavailable", "Retry-After: 7")


def open_outcomes(respond: Callable[[int], bytes], schedule: list[float]) -> list[Outcome]:
    with fake_server(respond) as address:
        return sorted(open_loop(address, [QUESTION], schedule).outcomes)


def test_every_scheduled_request_has_one_outcome_with_the_scheduled_moment() -> None:
    schedule = Stage(0, 0.1, 200).schedule()
    outcomes = open_outcomes(lambda _: answer(), schedule)
    assert [found.scheduled_s for found in outcomes] == pytest.approx(schedule)
    assert all(found.is_right and found.latency_s > 0 for found in outcomes)


def test_a_server_that_stalls_does_not_stop_the_schedule() -> None:
    schedule = Stage(0, 0.2, 100).schedule()
    all_are_there = threading.Barrier(len(schedule))

    def answer_when_all_are_there(_: int) -> bytes:
        all_are_there.wait(20)  # a generator that waits for answers never gets here with the last request
        return answer()

    outcomes = open_outcomes(answer_when_all_are_there, schedule)
    assert all(found.is_right for found in outcomes)
    # The first request was answered after the last one was sent, and its latency says so.
    assert outcomes[0].ended_s >= schedule[-1]


def test_latency_counts_from_the_schedule_even_if_the_request_could_not_be_sent_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "_FIRST_CONNECTIONS", 1)
    monkeypatch.setattr(load, "_MAX_CONNECTIONS", 1)
    schedule = Stage(0, 0.2, 50).schedule()
    is_over = threading.Event()

    def stall_until_the_schedule_is_over(_: int) -> bytes:
        is_over.wait(20)
        return answer()

    def watch(passed_s: float) -> None:
        if passed_s >= schedule[-1]:
            is_over.set()

    with fake_server(stall_until_the_schedule_is_over) as address:
        measured = open_loop(address, [QUESTION], schedule, at=watch)
    outcomes = measured.outcomes
    assert measured.late_share == (len(schedule) - 1) / len(schedule)
    assert len(outcomes) == len(schedule)
    assert all(found.ended_s >= schedule[-1] for found in outcomes)
    # A closed loop would have seen one slow request; here each that came meanwhile was slow, the early ones most.
    assert sorted(outcomes)[0].latency_s > sorted(outcomes)[5].latency_s > schedule[-1] - schedule[5]


def test_wrong_labels_are_not_right_whatever_the_status() -> None:
    outcomes = open_outcomes(lambda number: answer(WRONG if number == 0 else RIGHT), [0, 0.001])
    assert sorted(found.is_right for found in outcomes) == [False, True]
    assert {found.status for found in outcomes} == {200}


def test_a_refusal_is_kept_with_its_retry_after() -> None:
    (refusal,) = open_outcomes(lambda _: REFUSAL, [0])
    assert (refusal.status, refusal.is_right, refusal.retry_after_s, refusal.is_rested) == (503, False, 7, True)


def test_a_connection_that_was_just_refused_is_reused_only_if_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "_FIRST_CONNECTIONS", 1)
    monkeypatch.setattr(load, "_MAX_CONNECTIONS", 2)
    monkeypatch.setattr(load, "RESTED_S", 1000.0)
    outcomes = open_outcomes(lambda _: REFUSAL, [0.0, 0.05, 0.1, 0.15])
    assert [found.is_rested for found in outcomes] == [True, True, False, False]


def test_a_connection_that_the_server_breaks_is_an_outcome_and_the_load_goes_on() -> None:
    outcomes = open_outcomes(lambda number: b"" if number == 0 else answer(), [0, 0.02, 0.04])
    assert sorted(found.status for found in outcomes) == [BROKEN, 200, 200]


def test_requests_that_never_got_a_connection_are_outcomes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_FIRST_CONNECTIONS", 1)
    monkeypatch.setattr(load, "_MAX_CONNECTIONS", 1)
    monkeypatch.setattr(load, "_GIVE_UP_S", 0.1)
    is_over = threading.Event()

    def never_answer(_: int) -> bytes:
        is_over.wait(20)
        return b""

    with fake_server(never_answer) as address:
        outcomes = open_loop(address, [QUESTION], [0, 0.01, 0.02]).outcomes
        is_over.set()
    assert [found.status for found in outcomes] == [BROKEN] * 3


def test_a_request_that_waits_for_a_connection_gets_a_new_one_when_the_old_one_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "_FIRST_CONNECTIONS", 1)
    monkeypatch.setattr(load, "_MAX_CONNECTIONS", 1)
    is_late = threading.Event()

    def break_first(number: int) -> bytes:
        is_late.wait(20)
        return b"" if number == 0 else answer()

    with fake_server(break_first) as address:
        run = open_loop(address, [QUESTION], [0, 0.01], at=lambda passed_s: is_late.set() if passed_s > 0.01 else None)
    assert sorted(found.status for found in run.outcomes) == [BROKEN, 200]


def test_an_answer_that_comes_in_pieces_is_read_whole() -> None:
    big = answer(RIGHT + b" " * 1_000_000)
    (found,) = open_outcomes(lambda _: big, [0])
    assert found.is_right


def test_clients_that_retry_at_once_send_again_when_they_are_refused() -> None:
    with fake_server(lambda number: REFUSAL if number < 8 else answer()) as address:
        outcomes = closed_loop(address, [QUESTION], clients=4, seconds=0.5).outcomes
    assert sum(found.status == 503 for found in outcomes) == 8
    assert any(found.is_right for found in outcomes)


def test_a_closed_loop_has_no_more_requests_open_than_clients() -> None:
    lock, open_now, most = threading.Lock(), [0], [0]
    full = threading.Barrier(3)

    def count(number: int) -> bytes:
        with lock:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
        if number < 3:
            full.wait(20)
        with lock:
            open_now[0] -= 1
        return answer()

    with fake_server(count) as address:
        closed_loop(address, [QUESTION], clients=3, seconds=0.1)
    assert most[0] == 3
