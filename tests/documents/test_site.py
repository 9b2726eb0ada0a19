"""The sources of the documentation site, without the generator; and the site itself where Zensical is installed."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from docs.build_site import ROOT, linked_files, pages, write_sources
from tests.test_documents import broken_links_of


def named_in(nav: Any) -> set[str]:
    """Return the pages of a navigation, with those of its sections."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*(named_in(part) for part in (nav.values() if isinstance(nav, dict) else nav)))


def test_the_navigation_names_each_page_but_single_decisions() -> None:
    nav = named_in(tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]["nav"])
    expected = {"index.md" if page == Path("README.md") else str(page) for page in pages()}
    assert {page for page in expected - nav if not page.startswith(("docs/decisions/", "deploy/", "release/"))} == set()
    assert nav <= expected


def test_links_of_the_sources_lead_to_pages_and_headings(tmp_path: Path) -> None:
    write_sources(tmp_path / "site")
    sources = list((tmp_path / "site" / "pages").rglob("*.md"))
    assert len(sources) == len(pages())
    assert {str(page): broken for page in sources if (broken := broken_links_of(page))} == {}


def test_images_that_pages_show_are_part_of_the_sources() -> None:
    assert Path("docs/images/page.png") in linked_files()
    assert all((ROOT / file).is_file() for file in linked_files())


@pytest.mark.long
def test_the_generator_finds_no_broken_link(tmp_path: Path) -> None:
    zensical = Path(sys.executable).with_name("zensical")
    if not zensical.is_file():
        pytest.skip("zensical is not installed: make docs installs it")
    write_sources(tmp_path / "site")
    command = [zensical, "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=tmp_path / "site", capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "site" / "search.json").stat().st_size > 10_000
