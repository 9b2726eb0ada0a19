"""How fast this host runs a model, remembered between starts, so that the layout does not change with the weather.

A busy moment can make a model look slower than it is, never faster: the shortest time ever measured counts.
"""

import logging
import tempfile
from pathlib import Path

from service.system.cache import key_of, private_folder

log = logging.getLogger(__name__)

_KIND = "speeds"


def shortest_ever(cache: Path, *, model: str, processor: str, measured_s: float) -> float:
    """Return the shortest time that a model (by its sha256) has taken on a processor, this measurement included.

    Where the cache cannot be used, that is this measurement.
    """
    try:
        file = private_folder(cache, _KIND) / key_of(model=model, processor=processor)
        shortest_s = min(measured_s, _read(file))
        if shortest_s == measured_s:
            _write(file, measured_s)
        return shortest_s
    except OSError as error:
        log.info("%s cannot be used, so the model's speed is what was measured now: %s", cache, error.strerror)
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
