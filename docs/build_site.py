"""Builder of the documentation site: README and all pages, with search, in `build/docs/site`.

python -m docs.build_site

Pages link each other as files of the repository, so they keep their folders; README becomes `index.md`. Zensical runs
in strict mode: a broken link or anchor ends the build with exit status 1.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "docs"
_SOURCES = ("*.md", "docs/*.md", "docs/decisions/*.md", "benchmarks/*.md", "deploy/**/*.md", "release/*.md")
_README = Path("README.md")
_LINK_TO_README = re.compile(r"(\]\((?:\.\./)*)README\.md(?=[)#])")
_LINK = re.compile(r"\]\(([^)\s#:]+)[^)\s]*\)")


def pages() -> list[Path]:
    """Return all pages of the site, as paths relative to the repository."""
    return [page.relative_to(ROOT) for pattern in _SOURCES for page in sorted(ROOT.glob(pattern))]


def linked_files() -> set[Path]:
    """Return the files that pages link and that are no pages: images, the license, settings."""
    known, found = set(pages()), set()
    for page in known:
        for link in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            target = (ROOT / page.parent / link).resolve()
            if target.is_file() and target.is_relative_to(ROOT):
                found.add(target.relative_to(ROOT))
    return found - known


def text_of(page: Path) -> str:
    """Return the text of a page; links to the README of the repository lead to the index."""
    text = (ROOT / page).read_text(encoding="utf-8")
    beside_a_readme = page.parent != Path() and (ROOT / page).with_name("README.md").is_file()
    return text if beside_a_readme else _LINK_TO_README.sub(r"\1index.md", text)


def write_sources(folder: Path) -> None:
    """Write the pages, what they link, and Zensical's settings into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages():
        target = folder / "pages" / ("index.md" if page == _README else page)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text_of(page), encoding="utf-8")
    for file in linked_files():
        target = folder / "pages" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, target)
    shutil.copyfile(Path(__file__).with_name("zensical.toml"), folder / "zensical.toml")


def main() -> int:
    """Build the site and return the exit status of Zensical."""
    write_sources(FOLDER)
    zensical = Path(sys.executable).with_name("zensical")
    return subprocess.run([zensical, "build", "--clean", "--strict"], cwd=FOLDER, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
