"""Each fenced block of README and docs is run, or its page says why not."""

import json
import re

import pytest

from tests.documents.blocks import EXECUTED, MARKS, SHOWN, Block, blocks_of, blocks_of_page, pages
from tests.documents.running import NEEDS, needs_of, segments

BLOCKS = [block for page in pages() for block in blocks_of_page(page)]
JSON = [block for block in BLOCKS if block.language == "json"]
SHARE_NOT_RUN = 0.15


def test_each_block_names_a_language_that_is_run_or_shown() -> None:
    assert {block.place: block.language for block in BLOCKS if block.language not in EXECUTED | SHOWN} == {}


def test_each_block_that_is_not_run_has_a_reason_and_few_are() -> None:
    code = [block for block in BLOCKS if block.language in EXECUTED]
    skipped = {block.place: block.marks["not run"] for block in code if "not run" in block.marks}
    assert len(code) > 40
    assert [place for place, reason in skipped.items() if len(reason.split()) < 3] == []
    assert len(skipped) <= SHARE_NOT_RUN * len(code), skipped


def test_each_mark_and_each_need_is_known() -> None:
    assert {mark for block in BLOCKS for mark in block.marks} <= MARKS
    assert {need for block in BLOCKS for need in needs_of(block)} <= set(NEEDS)


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "json"], ids=lambda block: block.place
)
def test_each_block_of_json_is_json_with_some_values_left_out(block: Block) -> None:
    text = re.sub(r"…(?=[,}\]])", "null", re.sub(r", …(?=\])", "", block.text))
    for document in text.strip().splitlines() if text.lstrip().startswith('{"id"') else [text]:
        json.loads(document)


def test_blocks_have_their_line_language_and_marks() -> None:
    text = "# A\n\n<!-- not run: needs a GPU -->\n```sh\nls\n```\n\n1. Do:\n\n   ```python\n   print(1)\n   ```\n"
    first, second = blocks_of(text, "page.md")
    assert (first.place, first.language, first.text, first.marks) == (
        "page.md:4",
        "sh",
        "ls\n",
        {"not run": "needs a GPU"},
    )
    assert (second.line, second.language, second.text, second.marks) == (10, "python", "print(1)\n", {})
    assert (first.is_executed, second.is_executed) == (False, True)


def test_a_server_is_a_segment_of_its_own() -> None:
    text = "make install\nmake serve ARGS='--port 9000'   # the server\ncurl \\\n  x\nserve-resnet --help\n"
    assert list(segments(text)) == [
        ("make install\n", False),
        ("make serve ARGS='--port 9000'   # the server", True),
        ("curl \\\n  x\nserve-resnet --help\n", False),
    ]
