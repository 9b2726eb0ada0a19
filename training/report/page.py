"""The report as one HTML page that refers to nothing outside itself, and as Markdown."""

from html import escape

from training.report.figures import Panel
from training.report.sections import Section
from training.report.tables import Table

TITLE = "Deep residual learning: what these runs show"
INTRODUCTION = (
    "Runs of this project beside the paper (He et al. 2015, arXiv:1512.03385). Each number says what was run and with "
    "which budget. A run that is shorter than its recipe shows which way things go; its numbers are not the paper's."
)

_LONGEST_UNWRAPPED = 30  # characters of a cell
_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --ink: #12151c; --muted: #586072; --line: #d7dbe4; --sunken: #f1f3f7;
  --series-1: #1f62d8; --series-2: #c8372d; --series-3: #1b8a6b; --series-4: #8a4fc4; --series-5: #b07d00;
  --series-6: #586072;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1218; --ink: #e9edf5; --muted: #9ba6b9; --line: #2f3645; --sunken: #1a1f29;
    --series-1: #7aa5ff; --series-2: #ff8a7a; --series-3: #58d0a8; --series-4: #c79bff; --series-5: #e5b945;
    --series-6: #9ba6b9;
  }
}
body { background: var(--ground); color: var(--ink); margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { border-top: 1px solid var(--line); font-size: 1.25rem; margin-top: 3rem; padding-top: 1.25rem; }
p { max-width: 46rem; }
.muted, figcaption { color: var(--muted); }
.panels { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 0; max-width: 34rem; }
figcaption { font-size: 0.85rem; }
svg { display: block; height: auto; width: 100%; }
svg text { font-family: inherit; }
.scroll { margin: 1.25rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.35rem 1.1rem 0.35rem 0; text-align: left; }
td { vertical-align: top; white-space: nowrap; }
td.wraps { min-width: 12rem; white-space: normal; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
pre { background: var(--sunken); border-radius: 0.5rem; overflow-x: auto; padding: 0.8rem 1rem; }
"""


def html(parts: list[Section], notes: list[str]) -> str:
    """Return the page; `notes` are lines on runs that are not in it."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(TITLE)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f'<h1>{escape(TITLE)}</h1>\n<p class="muted">{escape(INTRODUCTION)}</p>',
            *(_section(part) for part in parts),
            *_notes(notes),
            "</body>\n</html>\n",
        ]
    )


def _section(part: Section) -> str:
    return "\n".join(
        [
            f'<section id="{part.letter}">\n<h2>({part.letter}) {escape(part.title)}</h2>',
            *(_block(block) for block in part.content),
            *_missing(part.missing),
            "</section>",
        ]
    )


def _block(block: str | Table | list[Panel]) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    return _table(block) if isinstance(block, Table) else _panels(block)


def _panels(panels: list[Panel]) -> str:
    drawn = [f"<figure>\n{panel.svg}\n<figcaption>{escape(panel.caption)}</figcaption>\n</figure>" for panel in panels]
    return "\n".join(['<div class="panels">', *drawn, "</div>"])


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows]
    return f'<div class="scroll"><table>\n<tr>{header}</tr>\n' + "\n".join(rows) + "\n</table></div>"


def _cell(text: str) -> str:
    wraps = ' class="wraps"' if len(text) > _LONGEST_UNWRAPPED else ""
    return f"<td{wraps}>{escape(text)}</td>"


def _missing(missing: dict[str, str]) -> list[str]:
    if not missing:
        return []
    return [f"<p>{escape(_what_is_missing(missing))}</p>\n<pre>{escape(chr(10).join(missing.values()))}</pre>"]


def _what_is_missing(missing: dict[str, str]) -> str:
    runs, them = ("finished runs", "them") if len(missing) > 1 else ("a finished run", "it")
    return f"Missing: {runs} of {', '.join(missing)} with the paper's recipe; this makes {them}:"


def _notes(notes: list[str]) -> list[str]:
    if not notes:
        return []
    return [
        "<section>\n<h2>Not in this report</h2>\n<ul>",
        *(f"<li>{escape(note)}</li>" for note in notes),
        "</ul></section>",
    ]


def markdown(parts: list[Section], notes: list[str]) -> str:
    """Return the same without the figures."""
    blocks = [f"# {TITLE}", INTRODUCTION]
    for part in parts:
        blocks.append(f"## ({part.letter}) {part.title}")
        for block in part.content:
            if not isinstance(block, list):
                blocks.append(block if isinstance(block, str) else _markdown_table(block))
        if part.missing:
            blocks += [_what_is_missing(part.missing), "```sh\n" + "\n".join(part.missing.values()) + "\n```"]
    if notes:
        blocks += ["## Not in this report", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
