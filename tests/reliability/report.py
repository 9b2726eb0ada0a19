"""The report of one reliability run: a table for a terminal, and JSON and Markdown in `build/reliability`."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "reliability"


@dataclass
class Report:
    """What was run, what was seen, and which promises were broken."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)  # sentences below the table
    broken: list[str] = field(default_factory=list)  # one line a broken promise; empty if all were kept
    commit: str = ""
    machine: str = ""
    when: str = ""

    def check(self, is_kept: bool, otherwise: str) -> None:
        """Note a broken promise unless it was kept."""
        if not is_kept:
            self.broken.append(otherwise)

    def table(self) -> Table:
        """Return the table, with the facts and the broken promises as its caption."""
        caption = "\n".join([*self.facts, *(f"BROKEN: {line}" for line in self.broken)])
        table = Table(*self.columns, title=self.title, caption=caption, caption_justify="left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return the report as a section of a Markdown page."""
        lines = [f"### {self.title}", "", _row(self.columns), _row("---" for _ in self.columns)]
        lines += [*map(_row, self.rows), ""]
        lines += [f"- {fact}" for fact in self.facts] + [f"- **Broken**: {line}" for line in self.broken]
        return "\n".join([*lines, f"- Commit {self.commit}, {self.when}, on {self.machine}.", ""])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def counted(number: float) -> str:
    """Return a number with separators between thousands."""
    return f"{number:,.0f}"


def machine() -> str:
    """Return the processor and its cores."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{len(names)} cores of an {name}"


def commit() -> str:
    """Return the short name of the commit that is checked out; with `+` if files differ from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def finish(report: Report, folder: Path = FOLDER) -> int:
    """Print a report, save it, renew the summary, and return the exit status: 1 if a promise was broken."""
    report.commit, report.machine, report.when = commit(), machine(), time.strftime("%Y-%m-%d")
    Console(width=None if sys.stdout.isatty() else 140).print(report.table())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{report.name}.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
    write_summary(folder)
    return int(bool(report.broken))


def write_summary(folder: Path) -> None:
    """Write `summary.md` with the last report of each name."""
    reports = [Report(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    (folder / "summary.md").write_text("\n".join(report.markdown() for report in reports))
