"""The measurements, kept as JSON beside the table, so that a run of a part replaces that part only."""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.serving import wrk
from benchmarks.serving.duel import Footprint, Pair
from benchmarks.serving.wrk import Measured
from service.system.cores import available_cores

ROOT = Path(__file__).parents[3]
_LIBRARIES = ("onnxruntime", "numpy", "pillow", "simplejpeg", "fastapi", "uvicorn", "uvloop", "httptools")
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")

Json = dict[str, Any]


class Results:
    """Cells by where they stand in the table; each says from which run it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else {}
        self.origins: dict[str, Json] = stored.get("origins", {})
        self.throughput: dict[str, dict[str, dict[str, Json]]] = stored.get("throughput", {})  # match, peer, column
        self.footprints: dict[str, dict[str, Json]] = stored.get("footprints", {})  # workload, server
        self.overload: dict[str, dict[str, Json]] = stored.get("overload", {})  # workload, server
        self.left_out: dict[str, str] = {}  # of this run: what, and why
        self._origin = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"

    def begin(self, arguments: Sequence[str]) -> None:
        """Note what makes all further cells comparable: commit, machine, versions, command."""
        self.origins[self._origin] = origin_of_now(arguments)

    def keep_pairs(self, match: str, peer: str, columns: dict[int, list[Pair]]) -> None:
        """Replace the cells of these columns."""
        cells = self.throughput.setdefault(match, {}).setdefault(peer, {})
        for column, pairs in columns.items():
            cells[str(column)] = {"origin": self._origin, "pairs": [asdict(pair) for pair in pairs]}
        self._write()

    def keep_footprint(self, workload: str, server: str, footprint: Footprint) -> None:
        self.footprints.setdefault(workload, {})[server] = {"origin": self._origin, **asdict(footprint)}
        self._write()

    def keep_overload(self, workload: str, server: str, rounds: list[dict[str, float]]) -> None:
        self.overload.setdefault(workload, {})[server] = {"origin": self._origin, "rounds": rounds}
        self._write()

    def pairs(self, match: str, peer: str, column: int) -> list[Pair]:
        """Return the pairs of a cell, none if it was never measured."""
        cell = self.throughput.get(match, {}).get(peer, {}).get(str(column), {"pairs": []})
        return [Pair(Measured(**pair["ours"]), Measured(**pair["theirs"]), pair["raw"]) for pair in cell["pairs"]]

    def columns(self, match: str) -> list[int]:
        """Return the columns that were ever measured."""
        return sorted({int(column) for cells in self.throughput[match].values() for column in cells})

    def used_origins(self) -> dict[str, Json]:
        """Return the runs that some cell is still from, oldest first."""
        cells = [cell for peers in self.throughput.values() for cells in peers.values() for cell in cells.values()]
        cells += [
            cell for part in (self.footprints, self.overload) for kinds in part.values() for cell in kinds.values()
        ]
        used = {cell["origin"] for cell in cells}
        return {name: origin for name, origin in sorted(self.origins.items()) if name in used}

    def _write(self) -> None:
        stored = {
            "origins": self.used_origins(),
            "throughput": self.throughput,
            "footprints": self.footprints,
            "overload": self.overload,
        }
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
        part.replace(self._path)


def origin_of_now(arguments: Sequence[str]) -> Json:
    """Return commit, machine, versions and command of this run."""
    return {
        "command": " ".join(["make bench-serving", *([f"ARGS='{' '.join(arguments)}'"] if arguments else [])]),
        "commit": _git("rev-parse", "--short=12", "HEAD") + (" with changes" if _git("status", "--porcelain") else ""),
        "processor": _processor(),
        "cores": available_cores(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "load_at_start": round(os.getloadavg()[0], 2),
        "load_by": wrk.tool(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else "unknown"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
    flags = set(facts.get("flags", "").split())
    has = ", ".join(flag for flag in _CPU_FLAGS if flag in flags) or "no vector extensions"
    return f"{facts.get('model name', platform.machine())} ({has})"
