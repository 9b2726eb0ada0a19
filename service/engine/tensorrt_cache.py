"""The folder of the engines that TensorRT builds for one model on one GPU, and reports of the build.

A build takes minutes. An engine is valid for one file, ONNX Runtime, TensorRT, GPU, precision and range of shapes; all
of them are part of the folder's name. One process builds at a time; an unfinished build is repeated.
"""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from service.system.cache import locked, note_use, private_folder, remove_old_entries

log = logging.getLogger(__name__)

_KIND = "tensorrt"
_FINISHED = "finished"
_TELL_EVERY_S = 10.0

Report = Callable[[str | None], None]  # receives the present activity; None: it has ended


def ignore_report(activity: str | None) -> None:
    """Discard a progress report."""


@contextlib.contextmanager
def engine_folder(cache: Path | None, key: str) -> Iterator[Path | None]:
    """Yield this process's folder, None if it is not writable. It counts as finished if no error occurs."""
    with contextlib.ExitStack() as stack:
        try:
            entry = None if cache is None else stack.enter_context(_open_entry(cache, key))
        except OSError:
            log.warning("%s cannot be written, so TensorRT builds its engines again at each start", cache)
            entry = None
        yield entry
        if entry is not None:
            with contextlib.suppress(OSError):
                (entry / _FINISHED).touch()
            note_use(entry)


@contextlib.contextmanager
def _open_entry(cache: Path, key: str) -> Iterator[Path]:
    folder = private_folder(cache, _KIND)
    with locked(folder / f"{key}.lock"):
        entry = folder / key
        if not (entry / _FINISHED).exists():
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir()
            remove_old_entries(folder)
        yield entry


@contextlib.contextmanager
def reported(activity: str, report: Report = ignore_report, *, every_s: float = _TELL_EVERY_S) -> Iterator[None]:
    """Log and report an activity while it lasts, with its seconds so far."""
    started = time.monotonic()
    over = threading.Event()

    def report_time() -> None:
        seconds = time.monotonic() - started
        log.info("%s: %.0f s so far", activity, seconds)
        report(f"{activity}: {seconds:.0f} s so far")

    def keep_reporting() -> None:
        while not over.wait(every_s):
            report_time()

    report_time()
    reporter = threading.Thread(target=keep_reporting, name="progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        over.set()
        reporter.join()
        report(None)
    log.info("%s: done after %.1f s", activity, time.monotonic() - started)
