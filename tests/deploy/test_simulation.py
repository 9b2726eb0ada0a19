"""The simulation agrees with queueing theory where that has an answer, and its faults do what they say."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from deploy.capacity import Objective, Plan, fewest, main, read_trace, report
from deploy.simulation import Clients, Faults, ServerModel, arrivals, simulate

QUICK = ServerModel(image_s=0.01, longest_wait_s=100.0, most_waiting=10**6, max_batch=1)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_one_server_waits_as_pollaczek_and_khinchine_say() -> None:
    load = 0.7
    outcome = simulate(QUICK, 1, [(600.0, load / 0.01)], seed=1)
    waiting_s = mean(outcome.latencies_s) - 0.01
    assert waiting_s == pytest.approx(load * 0.01 / (2 * (1 - load)), rel=0.1)  # constant service times
    assert outcome.success == 1.0


def test_exponential_service_times_wait_twice_as_long_as_constant_ones() -> None:
    model = ServerModel(image_s=0.01, longest_wait_s=100.0, most_waiting=10**6, max_batch=1, spread=1.0)
    waiting_s = mean(simulate(model, 1, [(900.0, 50.0)], seed=2).latencies_s) - 0.01
    assert waiting_s == pytest.approx(0.5 * 0.01 / (1 - 0.5), rel=0.15)


def test_several_threads_share_one_queue() -> None:
    model = ServerModel(image_s=0.01, threads=4, longest_wait_s=100.0, most_waiting=10**6, max_batch=1, spread=1.0)
    load, threads = 0.8, 4
    offered = load * threads
    terms = [offered**k / math.factorial(k) for k in range(threads)]
    last = offered**threads / math.factorial(threads) / (1 - load)
    waiting_s = last / (sum(terms) + last) * 0.01 / (threads * (1 - load))  # Erlang C
    outcome = simulate(model, 1, [(600.0, offered / 0.01)], seed=3)
    assert mean(outcome.latencies_s) - 0.01 == pytest.approx(waiting_s, rel=0.15)


def test_better_balancers_shorten_the_tail() -> None:
    trace = [(60.0, 800.0)]  # 10 servers of 100 a second
    p99_s = {name: simulate(QUICK, 10, trace, balancer=name).quantile_s(0.99) for name in ("random", "two", "least")}  # type: ignore[arg-type]
    assert p99_s["least"] < p99_s["two"] < p99_s["random"] / 1.5


def test_twice_the_capacity_answers_half_and_refuses_half() -> None:
    model = ServerModel(image_s=0.01, longest_wait_s=0.25, never_refused=0)
    outcome = simulate(model, 3, [(60.0, 600.0)])
    assert outcome.success == pytest.approx(0.5, abs=0.02)
    assert outcome.lost == 0
    assert outcome.busy_s == pytest.approx(3 * 60.0, rel=0.02)
    assert outcome.quantile_s(0.5) == pytest.approx(0.4 * 0.25, rel=0.7)  # a standing queue is kept short
    assert outcome.quantile_s(1.0) < 0.25 + 3 * 0.1


def test_images_that_arrive_during_a_batch_share_the_next_one() -> None:
    model = ServerModel(image_s=0.001, batch_s=0.02, max_batch=16)  # like a GPU
    outcome = simulate(model, 1, [(60.0, 250.0)])
    assert outcome.success == 1.0  # one by one it could do 48 a second
    assert outcome.quantile_s(0.99) < 0.08


def test_a_batch_is_limited_by_its_time_and_by_a_fair_share_of_each_thread() -> None:
    assert ServerModel(image_s=0.03).share(20) == 3
    assert ServerModel(image_s=0.001, threads=2).share(20) == 10
    assert ServerModel(image_s=0.001, max_batch=8).share(20) == 8


def test_the_first_outstanding_images_are_not_refused_unless_an_operator_sets_a_limit() -> None:
    trace = [(20.0, 200.0)]
    kept = simulate(ServerModel(image_s=0.01, longest_wait_s=0.1), 1, trace)
    refused = simulate(ServerModel(image_s=0.01, longest_wait_s=0.1, never_refused=0), 1, trace)
    assert kept.quantile_s(0.5) > 2 * refused.quantile_s(0.5)


def test_the_number_of_waiting_requests_is_limited_as_well() -> None:
    outcome = simulate(ServerModel(image_s=0.01, most_waiting=5), 1, [(20.0, 300.0)])
    assert outcome.quantile_s(1.0) <= 0.01 * (5 + 5 + 1)  # the batch that runs, then all that wait
    assert outcome.refused > 0


def test_retries_turn_refusals_of_a_short_burst_into_answers_and_multiply_the_load_of_a_long_one() -> None:
    model = ServerModel(image_s=0.01, longest_wait_s=0.1, never_refused=0)
    burst = [(10.0, 50.0), (1.0, 200.0), (20.0, 50.0)]
    assert simulate(model, 1, burst).success < simulate(model, 1, burst, clients=Clients(retries=3)).success
    long = simulate(model, 1, [(60.0, 200.0)], clients=Clients(retries=3))
    assert long.sent > 1.8 * long.requests
    assert long.success == pytest.approx(0.5, abs=0.07)  # repetitions create no capacity


def test_a_lost_zone_costs_what_was_open_and_what_arrives_before_it_is_noticed() -> None:
    faults = Faults(zones=3, zone_lost_at_s=20.0, noticed_after_s=4.0)
    outcome = simulate(QUICK, 3, [(60.0, 90.0)], faults=faults)
    assert outcome.lost == pytest.approx(4.0 * 90.0 / 3, rel=0.25)
    repeated = simulate(QUICK, 3, [(60.0, 90.0)], faults=faults, clients=Clients(retries=5))
    assert repeated.lost == 0


def test_a_rolling_update_loses_nothing_and_loads_the_others() -> None:
    faults = Faults(update_at_s=10.0, replaced_in_s=5.0)
    calm = simulate(QUICK, 3, [(60.0, 150.0)])
    updated = simulate(QUICK, 3, [(60.0, 150.0)], faults=faults)
    assert (updated.lost, updated.refused) == (0, 0)
    assert updated.quantile_s(0.99) > calm.quantile_s(0.99)


def test_without_any_server_left_requests_are_lost() -> None:
    outcome = simulate(QUICK, 1, [(30.0, 10.0)], faults=Faults(update_at_s=10.0, replaced_in_s=5.0))
    assert outcome.lost == pytest.approx(50, abs=25)


def test_arrivals_follow_the_trace() -> None:
    counts = Counter(int(moment // 100) for moment in arrivals([(100, 5.0), (100, 0.0), (100, 20.0)], random.Random(0)))
    assert counts[0] == pytest.approx(500, rel=0.15)
    assert counts[1] == 0
    assert counts[2] == pytest.approx(2000, rel=0.1)


def test_equal_seeds_have_equal_results() -> None:
    outcomes = [simulate(QUICK, 2, [(10.0, 100.0)], balancer="two", seed=seed) for seed in (4, 4, 5)]
    assert outcomes[0].latencies_s == outcomes[1].latencies_s != outcomes[2].latencies_s


def test_the_search_finds_the_smallest_number() -> None:
    for smallest in (1, 2, 7, 33, 500):
        assert fewest(lambda count, smallest=smallest: count >= smallest, 1) == smallest  # type: ignore[misc]
    with pytest.raises(ValueError, match="500 servers are not enough"):
        fewest(lambda _: False, 1)


def test_a_plan_needs_more_servers_for_a_lost_zone_than_for_normal_operation() -> None:
    plan = Plan(ServerModel(image_s=0.02), ((30.0, 200.0),), balancer="two", clients=Clients(retries=5), zones=3)
    rows = [line.split(" | ") for line in report(plan, Objective(p99_s=0.3))[2:5]]
    servers = {row[0].strip("| "): int(row[1]) for row in rows}
    assert servers.keys() == {"normal", "rolling update", "zone lost"}
    assert plan.lower_bound() == 4
    assert 4 < servers["normal"] <= servers["rolling update"]
    assert servers["normal"] < servers["zone lost"]


def test_a_trace_is_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "day.csv"
    file.write_text("# seconds,rate\n10,20\n5,100\n")
    assert read_trace(file) == ((10.0, 20.0), (5.0, 100.0))
    assert main(["--image-ms", "10", "--trace", str(file), "--p99-ms", "500"]) == 0
    assert "| normal | " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"), [("10;20\n", "line 1 of day.csv is not `seconds,rate`"), ("10,0\n", "no requests in day.csv")]
)
def test_a_bad_trace_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    file = tmp_path / "day.csv"
    file.write_text(text)
    assert main(["--image-ms", "10", "--trace", str(file)]) == 1
    assert message in capsys.readouterr().err
