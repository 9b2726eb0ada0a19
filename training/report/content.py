"""The parts of the report, before they become HTML or Markdown: sections, figures, tables and claims."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from training.report.drawing import Panel

# Side by side; many small ones in a row; one drawing over the whole width, which a phone scrolls sideways.
Layout = Literal["panels", "small", "wide"]


@dataclass(frozen=True, slots=True)
class Table:
    """A header, and rows of as many cells."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Drawings under one numbered caption.

    `finding` is the caption's first sentence: what these measurements show. `reading` describes how to read the
    drawings. `data` holds the drawn numbers, which the page offers as CSV. `script_data` is JSON for the page's script.
    """

    name: str  # the identifier on the page
    finding: str
    reading: str
    panels: Sequence[Panel]
    data: Table
    layout: Layout = "panels"
    script_data: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report; `missing` are runs that it lacks, with the command of each."""

    letter: str
    title: str
    content: list[str | Table | Figure] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


class Verdict(StrEnum):
    """What these runs say about a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNRESOLVED = "within the noise"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the paper, the verdict of these runs, and the measurement that it rests on."""

    statement: str
    verdict: Verdict
    number: str  # the measurement, with its noise
    explanation: str
    noise: str  # what ± means
    figure: str  # name of the figure that shows it
