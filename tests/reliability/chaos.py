"""Faults under load: what is done to a running server, which requests it costs, and how soon all is normal again.

`python -m tests.reliability.chaos [NAME …]` prints a table with one row for each fault. Every answer is checked: a
wrong one breaks the promise, whatever the fault is.
"""

import contextlib
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.reliability.answers import tracebacks
from tests.reliability.checked_load import CheckedLoad, Known, known_answers
from tests.reliability.faults import FAULTS, PROCESSES, Fault, Scene, Skipped
from tests.reliability.report import Report, counted, finish
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.served import ROOT, Served, serving_command

_BEFORE = 100  # right answers before a fault, and after it
_IN_A_ROW = 20  # right answers on new connections that make a server normal
_NORMAL_WITHIN_S = 300.0  # seconds on an idle machine; a busy one starts processes slowly
_COLUMNS = ("fault", "what was done", "requests", "wrong", "failed", "normal after, s")


def run(faults: Sequence[Fault] = FAULTS) -> Report:
    """Inject each fault into a server of its own, and return one row for each."""
    report = Report("chaos", "Faults under load", _COLUMNS)
    for fault in faults:
        with tempfile.TemporaryDirectory() as folder:
            try:
                _run(fault, Path(folder), report)
            except Skipped as reason:
                report.rows.append((fault.name, f"skipped: {reason}", "-", "-", "-", "-"))
    report.facts.append(
        "A request failed if it got no response, or another one than 200. Normal: two processes, and "
        f"{_IN_A_ROW} right answers in a row on new connections, counted from the end of the fault."
    )
    return report


def _run(fault: Fault, folder: Path, report: Report) -> None:
    models = _models(fault, folder)
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(fault.prepare(folder)) if fault.prepare else {}
        served = stack.enter_context(_server(fault, folder, models, environment))
        known = known_answers(served)
        with CheckedLoad(served, known) as load:
            load.wait_for(_BEFORE)
            scene = Scene(served, load, folder, models)
            done = fault.inject(scene)
            normal_s = _seconds_until_normal(served, known)
            load.wait_for(_BEFORE)
        deaths = served.sample("resnet_process_deaths_total")
    _note(fault, scene, done, normal_s, deaths, report)


def _models(fault: Fault, folder: Path) -> Path:
    models = folder / "models"
    if fault.model == "tiny":
        write_tiny_model(models)
    else:
        shutil.copytree(ROOT / "models" / fault.model, models / fault.model)
    return models


@contextlib.contextmanager
def _server(fault: Fault, folder: Path, models: Path, environment: dict[str, str]) -> Iterator[Served]:
    start = [sys.executable, "-c", f"{fault.patch}\nfrom service.__main__ import main\nmain()"]
    variables = {**os.environ, "XDG_CACHE_HOME": str(folder / "own-cache"), **environment}
    options = ("--models", models, "--processes", PROCESSES, "--log", "json")
    with serving_command(start, *options, environment=variables, fails=True) as served:
        yield served


def _seconds_until_normal(served: Served, known: list[Known]) -> float:
    """Return the time of the first of twenty right answers in a row of a complete server, or infinity."""
    began = last_bad = time.monotonic()
    in_a_row = 0
    while in_a_row < _IN_A_ROW:
        now = time.monotonic()
        if now - began > _NORMAL_WITHIN_S:
            return math.inf
        if _is_complete(served) and _answers_right(served, known[in_a_row % len(known)]):
            in_a_row += 1
        else:
            in_a_row, last_bad = 0, now
            time.sleep(0.05)
    return last_bad - began


def _is_complete(served: Served) -> bool:
    with contextlib.suppress(OSError):
        return len(served.workers()) == PROCESSES and served.sample("resnet_processes") == PROCESSES
    return False


def _answers_right(served: Served, known: Known) -> bool:
    with contextlib.suppress(OSError):
        status, document = served.ask("POST", "/classify", known.content)
        return status == 200 and known.is_right(document)
    return False


def _note(fault: Fault, scene: Scene, done: str, normal_s: float, deaths: float, report: Report) -> None:
    outcomes, failures = scene.load.outcomes, scene.load.failures
    failed = sum(failures.values())
    row = (counted(outcomes.total()), str(outcomes["wrong"]), str(failed), f"{normal_s:.1f}")
    report.rows.append((fault.name, "; ".join([done, *scene.notes]), *row))
    if failures:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(failures.items()))
        report.facts.append(f"{fault.name}: failed were {kinds}.")
    report.check(outcomes["wrong"] == 0, f"{fault.name}: {outcomes['wrong']} wrong answers")
    report.check(normal_s < _NORMAL_WITHIN_S, f"{fault.name}: not normal after {_NORMAL_WITHIN_S:g} s")
    ends = [line.partition(" ended: ")[2].strip(' "}\n') for line in scene.served.log if " ended: " in line]
    report.check(
        fault.deaths in (None, deaths), f"{fault.name}: {deaths:.0f} workers ended, not {fault.deaths}: {ends}"
    )
    most = math.inf if fault.most_failed is None else fault.most_failed
    report.check(failed <= most, f"{fault.name}: {failed} requests failed, at most {most} may")
    report.broken += [f"{fault.name}: {line}" for line in tracebacks(scene.served)]


if __name__ == "__main__":
    chosen = [fault for fault in FAULTS if fault.name in sys.argv[1:]] if len(sys.argv) > 1 else FAULTS
    sys.exit(finish(run(chosen)))
