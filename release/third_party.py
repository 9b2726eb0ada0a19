"""Writer of THIRD-PARTY-LICENSES.md: the licence of every package in the image, and of what the wheel bundles.

python -m release.third_party

Versions come from `constraints/`, licences from the metadata of the installed packages. A package that is not installed
keeps its row; a new one that is not installed fails.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from release.bundled import BUNDLED

ROOT = Path(__file__).parents[1]
FILE = ROOT / "THIRD-PARTY-LICENSES.md"
_PINS = ("service.txt", "service-cpu.txt", "signatures.txt")
_CLASSIFIER = "License :: OSI Approved :: "
_ROW = re.compile(r"\| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
_LONGEST = 60  # characters; some packages have the whole text where the name belongs
_HEAD = """# Licences of others

This page is generated: `python -m release.third_party`. The project itself is under the Apache License 2.0.

## In the wheel

| work | version | licence | where |
|---|---|---|---|
"""
_PACKAGES = """
## In the image

The wheel requires these packages, and the image for CPUs contains them in these versions. The text of each licence is
in the package's own metadata, below `/opt/venv`. The last part of the list is there with `SIGNATURES=yes` only:
cffi, cryptography, pycparser. The base image has the licences of Debian's packages in `/usr/share/doc`.

| package | version | licence |
|---|---|---|
"""


def third_party() -> str:
    """Return the text of the page. Raises LookupError for a package whose licence is not known."""
    bundled = "".join(f"| {one.name} | {one.version} | {one.licence} | `{one.folder}` |\n" for one in BUNDLED)
    known = _known()
    rows = (f"| {name} | {version} | {_licence(name, known)} |\n" for name, version in _pins())
    return _HEAD + bundled + _PACKAGES + "".join(rows)


def _pins() -> list[tuple[str, str]]:
    found = []
    for file in _PINS:
        lines = (ROOT / "constraints" / file).read_text("utf-8").splitlines()
        found += [tuple(line.split("==")) for line in lines if not line.startswith(("#", "-"))]
    return [(name, version) for name, version in found]


def _known() -> dict[str, str]:
    """Return the licences in the page as it is, by package."""
    text = FILE.read_text("utf-8") if FILE.is_file() else ""
    return {row[0]: row[2] for row in _ROW.findall(text)}


def _licence(name: str, known: dict[str, str]) -> str:
    try:
        found = metadata(name)
    except PackageNotFoundError:
        if name in known:
            return known[name]
        raise LookupError(f"the licence of {name} is not known: install the package, and run this again") from None
    if expression := found.get("License-Expression"):
        return str(expression)
    classified = [line.removeprefix(_CLASSIFIER) for line in found.get_all("Classifier", []) if _CLASSIFIER in line]
    stated = str(found.get("License") or "").strip()
    if stated and len(stated) <= _LONGEST and "\n" not in stated:
        return stated
    if classified:
        return " AND ".join(sorted(classified))
    raise LookupError(f"the metadata of {name} names no licence: add it to {FILE.name} by hand")


if __name__ == "__main__":
    FILE.write_text(third_party(), "utf-8")
