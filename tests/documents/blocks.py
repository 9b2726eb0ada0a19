"""The fenced blocks of README and docs, and what each page's source says about them.

python -m tests.documents.blocks      counts them, page by page

A block of a language of `EXECUTED` is run by `test_running.py`. Comments directly before a block say otherwise:

<!-- not run: reason -->     it is never run; at most 15% of the blocks are
<!-- needs: docker -->       it is run where that is there; see `NEEDS` in running.py
<!-- before: command -->     what a reader has done before, such as a run of training
<!-- arguments: photo.jpg -->    of a program in Python or Java
<!-- output -->              a block of `json` that the block before it prints: the same keys
"""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXECUTED = {"sh", "python", "js", "java"}
SHOWN = {"text", "json", "mermaid", "nginx", "yaml", "ini"}  # output, data, drawings and files of configuration
MARKS = {"not run", "needs", "before", "arguments", "output"}
_BLOCK = re.compile(
    r"(?P<marks>(?:^ *<!--[^\n]*-->\n)*)^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- *([^:\n]+?) *(?:: *(.*?))? *-->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block and the marks of the comments before it."""

    page: str
    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_executed(self) -> bool:
        return self.language in EXECUTED and "not run" not in self.marks


def pages() -> list[Path]:
    """Return README and every other page that a reader may take a command from."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def blocks_of(text: str, page: str) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    for match in _BLOCK.finditer(text):
        yield Block(
            page=page,
            line=text.count("\n", 0, match.start("indent")) + 1,
            language=match["language"].strip(),
            text=textwrap.dedent(match["text"]),
            marks={name: value or "" for name, value in _MARK.findall(match["marks"])},
        )


def blocks_of_page(page: Path) -> list[Block]:
    """Return the blocks of a file."""
    return list(blocks_of(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))))


def kinds(blocks: list[Block]) -> Counter[str]:
    """Count blocks: `run`, `needs …`, `not run` and `shown`."""
    return Counter(_kind(block) for block in blocks)


def _kind(block: Block) -> str:
    if block.language not in EXECUTED:
        return "shown"
    if "not run" in block.marks:
        return "not run"
    return f"needs {block.marks['needs']}" if "needs" in block.marks else "run"


def main() -> None:
    """Print a line for each page that has blocks, and the sum."""
    everything = {page: blocks_of_page(page) for page in pages()}
    for page, blocks in everything.items():
        if blocks:
            print(page.relative_to(ROOT), dict(kinds(blocks)))  # noqa: T201
    print("sum", dict(kinds([block for blocks in everything.values() for block in blocks])))  # noqa: T201


if __name__ == "__main__":
    main()
