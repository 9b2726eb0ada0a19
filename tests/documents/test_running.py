"""Every command and program of README and docs runs, page by page, in a copy of the repository."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documents.blocks import ROOT, Block, blocks_of_page, pages
from tests.documents.running import Reader, is_there, needs_of
from tests.documents.workspace import copy_of_the_repository, environment_of, install, write_photos

FAST = {"docs/http-api.md", "docs/model-file.md", "docs/open-inference.md"}
BLOCKS = {str(page.relative_to(ROOT)): blocks_of_page(page) for page in pages()}
PAGES = {page: blocks for page, blocks in BLOCKS.items() if any(block.is_executed for block in blocks)}


def parameters() -> list[Any]:
    return [pytest.param(page, marks=[] if page in FAST else [pytest.mark.long]) for page in PAGES]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def reader(tmp_path: Path, home: Path) -> Iterator[Reader]:
    folder = copy_of_the_repository(tmp_path / "resnet-service")
    install(folder)
    write_photos(folder)
    reader = Reader(folder, environment_of(folder, home))
    yield reader
    reader.stop()
    if is_there("docker"):
        reader.execute(["docker", "compose", "down", "--volumes"], Block("the end", 0, "sh", "", {}))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", parameters())
def test_each_block_of_a_page_runs(page: str, reader: Reader) -> None:
    left_out, count = [], 0
    for block in PAGES[page]:
        missing = [need for need in needs_of(block) if not is_there(need)]
        if block.is_executed and not missing:
            reader.run(block)
            count += 1
        elif block.is_executed:
            left_out.append(f"{block.place} needs {', '.join(missing)}")
        elif "output" in block.marks:
            assert_has_the_keys(reader.output, block)
    if left_out:
        pytest.skip(f"{count} blocks ran; left out: {'; '.join(left_out)}")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_fresh_clone_installs_and_serves_by_the_first_block_of_the_readme(tmp_path: Path, home: Path) -> None:
    if not is_there("pip"):
        pytest.skip("no package index can be reached")
    folder = copy_of_the_repository(tmp_path / "resnet-service")
    write_photos(folder)
    of_the_tests = ("PATH", "PYTHONPATH")
    environment = {name: value for name, value in environment_of(folder, home).items() if name not in of_the_tests}
    reader = Reader(folder, environment | {"PATH": os.environ["PATH"], "PYTHON": sys.executable})
    try:
        reader.run(next(block for block in BLOCKS["README.md"] if block.language == "sh"))
        assert '"predictions"' in reader.output
        assert (folder / ".venv" / "bin" / "serve-resnet").is_file()
    finally:
        reader.stop()


def assert_has_the_keys(output: str, block: Block) -> None:
    """Hold an output shown in a page to the real one: all its keys are there."""
    if output:
        real = json.loads(output.strip().splitlines()[-1])
        assert keys_of(re.sub(r"…", "0", block.text)) <= keys_of(json.dumps(real)), f"{block.place}: {output}"


def keys_of(text: str) -> set[str]:
    return set(re.findall(r'"(\w+)":', text))


def test_an_output_without_a_shown_key_is_found() -> None:
    block = Block("page.md", 1, "json", '{"label": "cat", "old": …}', {"output": ""})
    assert_has_the_keys('{"label": "dog", "old": 1, "new": 2}\n', block)
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        assert_has_the_keys('{"label": "dog", "new": 2}\n', block)


def test_a_command_that_fails_is_named_with_its_page_and_output(reader: Reader) -> None:
    with pytest.raises(AssertionError, match=r"(?s)page\.md:7 ends with 3.*so it ends"):
        reader.run(Block("page.md", 7, "sh", "true\necho so it ends; exit 3\n", {}))


def test_an_error_of_the_service_fails_the_command(reader: Reader) -> None:
    with pytest.raises(AssertionError, match="no_file"):
        reader.run(Block("page.md", 7, "sh", "curl -F photo=@photo.jpg http://127.0.0.1:8000/classify\n", {}))
