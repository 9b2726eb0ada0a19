"""The shortest time in which this host has run a model, stored between starts, so that the layout is stable.

Other load on the host can make a measurement slower than the model, but never faster, so the minimum is used.
"""

import logging
import tempfile
from pathlib import Path

from service.system.cache import key_of, private_folder

log = logging.getLogger(__name__)

_KIND = "speeds"


def best_latency(cache: Path, *, model: str, processor: str, measured_s: float) -> float:
    """Return the shortest measured time of a model (by its sha256) on a processor, in seconds, and store it.

    Without a usable cache the result is `measured_s`.
    """
    try:
        file = private_folder(cache, _KIND) / key_of(model=model, processor=processor)
        shortest_s = min(measured_s, _read(file))
        if shortest_s == measured_s:
            _write(file, measured_s)
        return shortest_s
    except OSError as error:
        log.info("the cache %s is not usable, so only the latest speed measurement counts: %s", cache, error.strerror)
        return measured_s


def _read(file: Path) -> float:
    try:
        seconds = float(file.read_text())
    except (FileNotFoundError, ValueError):
        return float("inf")
    return seconds if seconds > 0 else float("inf")


def _write(file: Path, seconds: float) -> None:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False) as temporary:
        temporary.write(repr(seconds))
    Path(temporary.name).replace(file)
