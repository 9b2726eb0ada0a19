"""The report as Markdown: the same without the figures."""

from collections.abc import Sequence

from training.report.content import Claim, Figure, Section, Table
from training.report.page import INTRODUCTION, TITLE, figure_numbers, what_is_missing


def markdown(claims: Sequence[Claim], parts: Sequence[Section], notes: Sequence[str]) -> str:
    """Return claims, findings, tables, and the commands of missing runs."""
    numbers = figure_numbers(parts)
    blocks = [f"# {TITLE}", INTRODUCTION, _table(_claims_table(claims))]
    for part in parts:
        blocks.append(f"## ({part.letter}) {part.title}")
        for block in part.content:
            if isinstance(block, Figure):
                blocks.append(f"Figure {numbers[block.name]} (in the page): {block.finding}")
            else:
                blocks.append(block if isinstance(block, str) else _table(block))
        if part.missing:
            blocks += [what_is_missing(part.missing), "```sh\n" + "\n".join(part.missing.values()) + "\n```"]
    if notes:
        blocks += ["## Not in the comparisons", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(blocks) + "\n"


def _claims_table(claims: Sequence[Claim]) -> Table:
    rows = [
        (claim.statement, claim.verdict.value, claim.number, claim.explanation, claim.noise or "-") for claim in claims
    ]
    return Table(("claim", "verdict", "measured", "what", "±"), rows)


def _table(table: Table) -> str:
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
