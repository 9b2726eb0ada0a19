"""The behavior of a server beyond its capacity: a flood, clients that retry at once, slow senders."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.clients import probes
from benchmarks.serving.clients.connections import Question
from benchmarks.serving.clients.figures import (
    Outcome,
    Stage,
    admitted,
    goodput_ceiling,
    quantile,
    recovery_s,
    refused,
)
from benchmarks.serving.clients.load import Load, closed_loop, open_loop
from benchmarks.serving.duel import Arena
from benchmarks.serving.servers import processes
from benchmarks.serving.servers.servers import ROOT, SERVICE, Kind, Running
from benchmarks.serving.servers.workload import Workload
from service.system.cores import available_cores

MAX_QUEUE_AGE_S = 0.25  # of our service, here; its default is made for people, not for this test
OVERLOAD = 4  # the factor whose figures have no suffix
OTHER_FACTORS = (1.2, 2, 10)
_BUSY = 0.8  # of the peak: what normal means
_AGAIN_NORMAL = 1.2  # of the p99 when busy
_CLIENTS_AT_PEAK = (4, 8, 16, 32, 64)
_INSISTING_CLIENTS = 256
_SLOW_SENDERS = 500
_CORES = available_cores()
SLOW_S = 40  # longer than any sender may take


@dataclass(frozen=True, slots=True)
class Peak:
    """The most right answers a second, and what one costs the server."""

    goodput: float
    answer_cpu_s: float  # all threads
    answer_loop_cpu_s: float  # of the event loops only
    generator_cpu: float  # cores
    wrong: int


def find_peak(server: Running, seconds: float) -> Peak:
    """Return the best of several numbers of clients that wait for each answer."""
    return max((_peak_at(server, clients, seconds) for clients in _CLIENTS_AT_PEAK), key=lambda peak: peak.goodput)


def overload(server: Running, peak: Peak, seconds: float, factor: float = OVERLOAD) -> dict[str, float]:
    """Return what happens at `factor` times the peak between two stages of 0.8 times it. Times in seconds."""
    busy = Stage(0, seconds, _BUSY * peak.goodput)
    flood = Stage(busy.ends_s, seconds, factor * peak.goodput)
    after = Stage(flood.ends_s, seconds, _BUSY * peak.goodput)
    loop_cpu: list[float] = []
    generator_cpu: list[float] = []

    def look(passed_s: float) -> None:
        if passed_s >= (flood.begins_s, flood.ends_s, float("inf"))[len(loop_cpu)]:
            loop_cpu.append(processes.main_threads_cpu_s(server.session))
            generator_cpu.append(time.process_time())

    schedule = busy.schedule() + flood.schedule() + after.schedule()
    overflows = processes.listen_overflows()
    with probes.running(server.address, after.ends_s) as probed:
        load = open_loop(server.address, _questions(server), schedule, at=look)
    normal_p99 = quantile(admitted(busy.of(load.outcomes)), 0.99)
    figures = {
        "peak": peak.goodput,
        **_costs(flood, load, peak, factor, loop_cpu[1] - loop_cpu[0], generator_cpu[1] - generator_cpu[0]),
        "busy_p99": normal_p99,
        **_delays(flood.of(load.outcomes)),
        "recovery": recovery_s(load.outcomes, after, _AGAIN_NORMAL * normal_p99),
        "send_lag_p99": load.send_lag_p99_s,
        "late_share": load.late_share,
        "listen_overflows": float(processes.listen_overflows() - overflows),
        "probe_worst": max(probed, default=math.nan),
        **_mistakes(load, peak.wrong),
    }
    suffix = "" if factor == OVERLOAD else f"_at_{factor:g}x"
    return {f"{name}{suffix}": value for name, value in figures.items()}


def _costs(
    flood: Stage, load: Load, peak: Peak, factor: float, loop_cpu_s: float, generator_cpu_s: float
) -> dict[str, float]:
    """Return the answers under overload as a share of the peak, and the CPU time of a refusal."""
    answers = flood.goodput(load.outcomes) * flood.seconds
    share = answers / flood.seconds / peak.goodput
    generator = generator_cpu_s / flood.seconds
    refusals = sum(outcome.status == 503 for outcome in flood.of(load.outcomes))
    refusal_cost = max(0.0, (loop_cpu_s - answers * peak.answer_loop_cpu_s) / refusals) if refusals else 0.0
    return {
        "goodput_share": share,
        "goodput_of_cpu_left": share * (_CORES - peak.generator_cpu) / (_CORES - generator),
        "refusal_cost": refusal_cost / peak.answer_cpu_s,
        "refusal_cpu": refusal_cost,
        "ceiling": goodput_ceiling(factor, refusal_cost / peak.answer_cpu_s),
        "generator_cpu": generator,
    }


def _delays(outcomes: list[Outcome]) -> dict[str, float]:
    """Return the delays of the answers and refusals under overload, and the clients that return too early."""
    refusals = sum(outcome.status == 503 for outcome in outcomes)
    return {
        "admitted_p99": quantile(admitted(outcomes), 0.99),
        "refusal_p99": quantile(refused(outcomes), 0.99),
        "refusal_again_p99": quantile(refused(outcomes, is_rested=False), 0.99),
        "refusals_again_share": len(refused(outcomes, is_rested=False)) / refusals if refusals else 0.0,
        **_retry_after(outcomes),
    }


def insisting_clients(server: Running, peak: Peak, seconds: float) -> dict[str, float]:
    """Return what is left of the peak when 256 clients retry the moment they are refused."""
    load = closed_loop(server.address, _questions(server), clients=_INSISTING_CLIENTS, seconds=seconds)
    goodput = Stage(0, seconds, 0).goodput(load.outcomes)
    refusals = sum(outcome.status == 503 for outcome in load.outcomes)
    return {
        "insisting_goodput_share": goodput / peak.goodput,
        "insisting_refusals_per_s": refusals / seconds,
        "insisting_generator_cpu": load.generator_cpu,
        **{f"insisting_{name}": value for name, value in _mistakes(load, 0).items()},
    }


def slow_senders(server: Running, peak: Peak, seconds: float) -> dict[str, float]:
    """Return what 500 clients that send a byte a second do to good traffic at half the peak."""
    questions = _questions(server)
    alone = open_loop(server.address, questions, Stage(0, seconds, peak.goodput / 2).schedule())
    command = [sys.executable, "-m", "benchmarks.serving.clients.slow_senders"]
    size = [str(server.address[1]), str(_SLOW_SENDERS), str(SLOW_S)]
    with subprocess.Popen([*command, *size], cwd=ROOT, stdout=subprocess.PIPE, text=True) as slow:
        beside = open_loop(server.address, questions, Stage(0, SLOW_S, peak.goodput / 2).schedule())
        lasted = json.loads(slow.communicate()[0])
    return {
        "slow_p99_ratio": quantile(admitted(beside.outcomes), 0.99) / quantile(admitted(alone.outcomes), 0.99),
        "slow_good_failures": float(sum(not outcome.is_right for outcome in beside.outcomes)),
        "slow_heads_last": max((each for each in lasted["head"] if each is not None), default=0.0),
        "slow_bodies_last": max((each for each in lasted["body"] if each is not None), default=0.0),
        "slow_never_closed": float(sum(each is None for each in lasted["head"] + lasted["body"])),
    }


def measure(arena: Arena, kind: Kind, workload: Workload, seconds: float) -> dict[str, float]:
    """Return one round of everything; slow senders are for our service only. Raises ServerFailed."""
    is_ours = kind is SERVICE
    options = ["--max-queue-age-s", str(MAX_QUEUE_AGE_S)] if is_ours else []
    with arena.running(kind, workload, *options) as server:
        peak = find_peak(server, seconds / 4)
        figures = overload(server, peak, seconds)
        for factor in OTHER_FACTORS:
            processes.wait_until_calm(server.session)
            figures |= overload(server, peak, seconds, factor)
        processes.wait_until_calm(server.session)
        figures |= insisting_clients(server, peak, seconds)
        if is_ours:
            processes.wait_until_calm(server.session)
            figures |= slow_senders(server, peak, seconds)
    return figures


def _peak_at(server: Running, clients: int, seconds: float) -> Peak:
    cpu, loop_cpu = processes.cpu_s(server.session), processes.main_threads_cpu_s(server.session)
    load = closed_loop(server.address, _questions(server), clients=clients, seconds=seconds)
    answers = max(1, sum(outcome.status == 200 for outcome in load.outcomes))
    return Peak(
        Stage(0, seconds, 0).goodput(load.outcomes),
        (processes.cpu_s(server.session) - cpu) / answers,
        (processes.main_threads_cpu_s(server.session) - loop_cpu) / answers,
        load.generator_cpu,
        sum(outcome.status == 200 and not outcome.is_right for outcome in load.outcomes),
    )


def _questions(server: Running) -> list[Question]:
    return server.workload.questions(server.kind.takes_form)


def _retry_after(outcomes: Sequence[Outcome]) -> dict[str, float]:
    refusals = [outcome.retry_after_s for outcome in outcomes if outcome.status == 503]
    delays = [seconds for seconds in refusals if seconds is not None]
    return {
        "retry_after_least": float(min(delays, default=0)),
        "retry_after_most": float(max(delays, default=0)),
        "retry_after_missing": float(len(refusals) - len(delays)),
    }


def _mistakes(load: Load, wrong_before: int) -> dict[str, float]:
    wrong = sum(outcome.status == 200 and not outcome.is_right for outcome in load.outcomes)
    failed = sum(outcome.status not in (200, 503) for outcome in load.outcomes)
    return {"wrong": float(wrong + wrong_before), "failed": float(failed)}
