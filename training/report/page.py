"""The report as one HTML page that refers to nothing outside itself."""

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from urllib.parse import quote

from training.report.content import Claim, Figure, Section, Table, Verdict

TITLE = "Deep residual learning: what these runs show"
INTRODUCTION = (
    "A plain network is a stack of convolutions. A residual network adds to each block of them a shortcut: the block's "
    "input is added to its output. He et al. (2015, arXiv:1512.03385) claim six things about the two; here is what the "
    "runs of this project say about each. A run that is shorter than its recipe shows which way things go; its numbers "
    "are not the paper's."
)

_LAYOUTS = {"panels": "panels", "small": "panels small", "wide": "wide"}  # classes
_LONGEST_UNWRAPPED = 30  # characters of a cell
# Nothing is loaded from anywhere; what is in the page may run, and colour scales are images in the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_CLASSES = {Verdict.UNRESOLVED: "unresolved", Verdict.NOT_MEASURED: "not-measured"}


def html(claims: Sequence[Claim], parts: Sequence[Section], notes: Sequence[str]) -> str:
    """Return the page; `notes` are lines on runs that are not in the comparisons."""
    numbers = figure_numbers(parts)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(TITLE)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>",
            f'<h1>{escape(TITLE)}</h1>\n<p class="muted">{escape(INTRODUCTION)}</p>',
            '<ul class="claims">',
            *(_claim(claim, numbers) for claim in claims),
            "</ul>",
            *(_section(part, numbers) for part in parts),
            *_notes(notes),
            f"<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n",
        ]
    )


def _asset(name: str) -> str:
    return resources.files("training.report").joinpath(name).read_text(encoding="utf-8")


def figure_numbers(parts: Sequence[Section]) -> dict[str, int]:
    """Return the number of each figure, by name, in order of appearance."""
    figures = [block.name for part in parts for block in part.content if isinstance(block, Figure)]
    return {name: number for number, name in enumerate(figures, start=1)}


def _claim(claim: Claim, numbers: Mapping[str, int]) -> str:
    number = numbers.get(claim.figure)
    link = f' <a href="#{claim.figure}">Figure {number}</a>' if number else ""
    noise = f"<small>±: {escape(claim.noise)}</small>" if claim.noise else ""
    return (
        f'<li class="claim {_CLASSES.get(claim.verdict, claim.verdict.value)}">'
        f'<span class="verdict">{escape(claim.verdict.value)}</span>\n<h3>{escape(claim.statement)}</h3>\n'
        f'<div class="number">{escape(claim.number)}</div>\n<p>{escape(claim.explanation)}{link}</p>\n{noise}</li>'
    )


def _section(part: Section, numbers: Mapping[str, int]) -> str:
    return "\n".join(
        [
            f'<section id="{part.letter}">\n<h2>({part.letter}) {escape(part.title)}</h2>',
            *(_block(block, numbers) for block in part.content),
            *_missing(part.missing),
            "</section>",
        ]
    )


def _block(block: str | Table | Figure, numbers: Mapping[str, int]) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    return _table(block) if isinstance(block, Table) else _figure(block, numbers[block.name])


def _figure(figure: Figure, number: int) -> str:
    data = f'<script type="application/json" id="{figure.name}-data">{_for_a_script(figure.script_data)}</script>'
    return "\n".join(
        [
            f'<figure id="{figure.name}">\n<div class="{_LAYOUTS[figure.layout]}">',
            *(panel.svg for panel in figure.panels),
            f"</div>\n<figcaption><strong>Figure {number}. {escape(figure.finding)}</strong> {escape(figure.reading)}",
            f'<a class="download" download="figure-{number}-{figure.name}.csv" href="{_csv_address(figure.data)}">'
            "Data as CSV</a></figcaption>",
            data if figure.script_data else "",
            "</figure>",
        ]
    )


def _for_a_script(content: str | None) -> str:
    """Return JSON that cannot end the element that it is in."""
    return (content or "").replace("<", "\\u003c")


def _csv_address(table: Table) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([table.header, *table.rows])
    return "data:text/csv;charset=utf-8," + quote(file.getvalue(), safe=",;:()/")


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows]
    return f'<div class="scroll"><table>\n<tr>{header}</tr>\n' + "\n".join(rows) + "\n</table></div>"


def _cell(text: str) -> str:
    wraps = ' class="wraps"' if len(text) > _LONGEST_UNWRAPPED else ""
    return f"<td{wraps}>{escape(text)}</td>"


def _missing(missing: Mapping[str, str]) -> list[str]:
    if not missing:
        return []
    return [f"<p>{escape(what_is_missing(missing))}</p>\n<pre>{escape(chr(10).join(missing.values()))}</pre>"]


def what_is_missing(missing: Mapping[str, str]) -> str:
    """Return which runs a part lacks, as a sentence before their commands."""
    runs, them = ("finished runs", "them") if len(missing) > 1 else ("a finished run", "it")
    return f"Missing: {runs} of {', '.join(missing)} with the paper's recipe; this makes {them}:"


def _notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    return [
        "<section>\n<h2>Not in the comparisons</h2>\n<ul>",
        *(f"<li>{escape(note)}</li>" for note in notes),
        "</ul></section>",
    ]
