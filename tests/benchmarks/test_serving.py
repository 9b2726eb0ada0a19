"""What surrounds the load: patterns of answers, wrk, slow senders, processes, and the table that survives parts."""

import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.fake_server import RIGHT, WRONG, answer, fake_server
from benchmarks.serving import wrk
from benchmarks.serving.__main__ import _parser
from benchmarks.serving.campaign import MATCHES, Plan
from benchmarks.serving.clients import slow_senders
from benchmarks.serving.duel import Footprint, Pair, contenders
from benchmarks.serving.reports.results import Results
from benchmarks.serving.reports.table import render
from benchmarks.serving.servers import processes
from benchmarks.serving.servers.prepare import clear_labels
from benchmarks.serving.servers.servers import PEERS, SERVICE, Running
from benchmarks.serving.servers.workload import Workload, answer_pattern
from benchmarks.serving.wrk import Measured


def workload(*labels: str, images: int = 2) -> Workload:
    return Workload("resnet20", "fp32", Path("a/b/c/d"), (b"image",) * images, (labels,) * images)


def measured(rate: float, wrong: int = 0) -> Measured:
    return Measured(rate, 0.001, 0.004, wrong, 0, 0, 0.1)


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        ('{"predictions":[{"label":"cat","index":3},{"label":"dog","index":5}]}', True),
        (
            '{"model": {"name": "m"}, "predictions": [{"label": "cat", "p": 0.9}, {"label": "dog"}, {"label": "ox"}]}',
            True,
        ),
        ('[{"predictions": [{"label": "cat"}, {"label": "dog"}]}]', True),
        ('{"predictions": [{"label": "dog"}, {"label": "cat"}]}', False),
        ('{"predictions": [{"label": "cat"}, {"label": "ox"}, {"label": "dog"}]}', False),
        ('{"predictions": [{"label": "cats"}, {"label": "dog"}]}', False),
    ],
)
def test_an_answer_is_right_if_its_first_labels_are_the_expected_ones_in_their_order(said: str, is_right: bool) -> None:
    assert bool(re.search(answer_pattern(("cat", "dog"), re.escape), said)) is is_right


def test_labels_that_rounding_could_swap_are_not_requested() -> None:
    def best(*probabilities: float) -> dict[str, list[dict[str, float]]]:
        return {"predictions": [{"label": index, "probability": p} for index, p in enumerate(probabilities)]}

    assert clear_labels(best(0.6, 0.2, 0.1, 0.05, 0.01)) == ["0", "1", "2", "3"]
    assert clear_labels(best(0.6, 0.2, 0.1999, 0.05)) == ["0"]
    assert clear_labels(best(0.3, 0.2999)) == []


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_distinguishes_right_wrong_refused_and_failed_answers() -> None:
    said = [answer(), answer(WRONG), answer(b"{}", "503 Service Unavailable"), answer(b"{}", "500 Oh")]
    with fake_server(lambda number: said[number] if number < 4 else said[0]) as address:
        found = wrk.measure(Running(SERVICE, workload("cat", "dog"), address, 0), 4, 1)
    assert (found.wrong, found.refused, found.failed) == (1, 1, 1)
    assert found.rate > 0


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_knows_labels_with_signs_that_mean_something_in_a_pattern() -> None:
    label = 'a-b. (c) [d] 100% "é"'
    said = answer(RIGHT.replace(b"cat", rb"a-b. (c) [d] 100% \"\u00e9\""))
    with fake_server(lambda _: said) as address:
        found = wrk.measure(Running(SERVICE, workload(label), address, 0), 1, 1)
    assert found.wrong == 0
    assert found.rate > 0


def test_without_wrk_our_own_generator_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with fake_server(lambda number: answer(WRONG if number == 0 else RIGHT)) as address:
        found = wrk.measure(Running(SERVICE, workload("cat", "dog"), address, 0), 2, 1)
    assert (found.wrong, found.refused, found.failed) == (1, 0, 0)
    assert found.rate > 0


def test_slow_senders_note_who_was_sent_away_and_who_was_not() -> None:
    with fake_server(lambda _: b"") as address:  # it waits for the end of each request, so for ever
        lasted = slow_senders.run(address[1], 4, 0.3)
    assert lasted == {"head": [None, None], "body": [None, None]}


def test_slow_senders_are_ended_by_a_server_that_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close_all() -> None:
            for _ in range(4):
                listener.accept()[0].close()

        closing = threading.Thread(target=close_all)
        closing.start()
        lasted = slow_senders.run(listener.getsockname()[1], 4, 30)
        closing.join()
    assert all(seconds is not None and seconds < 30 for seconds in lasted["head"] + lasted["body"])


def test_a_servers_processes_are_found_even_in_sessions_of_their_own_and_can_be_ended() -> None:
    child = "import sys, time; print('there', flush=True); time.sleep(600)"
    parent = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(processes.members(process.pid)) == 2
        assert processes.pss_mib(process.pid) > 1
        assert processes.cpu_s(process.pid) > 0
        assert processes.main_threads_cpu_s(process.pid) > 0
        processes.end(process.pid)
        process.wait()
        assert process.stdout.read() == b""  # the child is gone, too: nobody holds the pipe


def test_only_peers_near_the_best_of_a_column_stay_in_it() -> None:
    rates = {"a": {1: 100.0, 8: 10.0}, "b": {1: 79.0, 8: 50.0}, "c": {1: 81.0}}
    assert contenders(rates) == {"a": [1], "b": [8], "c": [1]}


def test_a_run_of_a_part_replaces_its_cells_and_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = Results(path)
    first.begin([])
    first.keep_pairs("resnet20 fp32", "mosec", {c: [Pair(measured(200), measured(100), 400)] * 5 for c in (1, 8)})
    first.keep_footprint("resnet20 fp32", SERVICE.name, Footprint(120, 0.01))
    first.keep_overload("resnet20 fp32", SERVICE.name, [{"goodput_share": 0.95}, {"goodput_share": 0.91}])
    second = Results(path)
    second.begin(["--columns", "8"])
    second.keep_pairs("resnet20 fp32", "mosec", {8: [Pair(measured(300), measured(100), 400)] * 5})
    again = Results(path)
    assert again.pairs("resnet20 fp32", "mosec", 1)[0].ours.rate == 200
    assert again.pairs("resnet20 fp32", "mosec", 8)[0].ours.rate == 300
    assert again.footprints["resnet20 fp32"][SERVICE.name]["pss_mib"] == 120


def test_a_run_of_a_part_continues_the_published_page_and_its_results() -> None:
    page = _parser().parse_args([]).page
    assert page.read_text().startswith("# Benchmarks of serving")
    assert Results(page.with_name("results.json")).footprints


def test_the_table_names_the_best_peer_of_each_column_and_our_ratio_to_it(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json")
    results.begin([])
    results.keep_pairs("resnet20 fp32", "mosec", {1: [Pair(measured(200), measured(100), 400)] * 5})
    results.keep_pairs("resnet20 fp32", "fastapi", {1: [Pair(measured(240, wrong=2), measured(160), 400)] * 5})
    page = render(results)
    rows = {cells[1].strip(): cells[2].strip() for line in page.splitlines() if len(cells := line.split("|")) == 4}
    assert rows["**best peer**"] == PEERS["fastapi"].name
    assert rows["**ratio to it**"] == "**1.50 (1.50–1.50)** n=5"
    assert rows["of raw ONNX Runtime"] == "0.55 (0.50–0.60)"
    assert rows["wrong, 503, failed: ours"] == "10, 0, 0"


def test_the_estimate_grows_with_the_options() -> None:
    def plan(pairs: int, matches: tuple[str, ...]) -> Plan:
        return Plan(matches, tuple(PEERS), (1, 8), pairs, 4, (), (), 1, 10)

    assert plan(5, MATCHES[:1]).estimate_s() < plan(7, MATCHES[:1]).estimate_s() < plan(7, MATCHES[:2]).estimate_s()
