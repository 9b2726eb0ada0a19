"""Documents agree with each other and with the code: links, anchors, sizes, settings, errors, metrics, log fields."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.generate_configuration import FILE, configuration
from service.api.openapi.failures import FAILURES
from service.app import create_app
from service.settings import Settings
from service.telemetry import prometheus

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def prose_of(page: Path) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in _HEADING.findall(prose_of(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = found[anchor] = found.get(anchor, -1) + 1
        anchors.add(f"{anchor}-{count}" if count else anchor)
    return anchors


def broken_links_of(page: Path) -> list[str]:
    broken = []
    for link in _LINK.findall(_CODE.sub("", prose_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken_links_of(page) == []


def test_a_link_to_a_missing_file_or_heading_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Two words\n[a](#two-words) [b](#three) [c](page.md#two-words) [d](gone.md) `[e](code.md)`\n")
    assert broken_links_of(page) == ["#three", "gone.md"]


def test_the_readme_stays_short() -> None:
    readme = (ROOT / "README.md").read_bytes()
    assert len(readme) <= 9_000
    assert readme.count(b"\n") <= 180


def test_the_readme_links_each_page_of_docs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name}" not in readme] == []


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    assert FILE.read_text(encoding="utf-8") == configuration(), "run python -m docs.generate_configuration"


def test_the_page_of_the_api_has_each_code_with_its_status() -> None:
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, re.MULTILINE))
    documented = {(str(status), code) for status, failure in FAILURES.items() for code in failure.codes}
    assert documented <= rows
    assert {code for _, code in rows - documented} == {"forbidden", "model_refused"}  # of the admin port


def test_each_path_of_the_api_is_documented() -> None:
    names = ("http-api", "open-inference", "clients")
    text = "".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in names)
    paths = create_app(Settings()).openapi()["paths"]
    assert len(paths) > 30
    assert [path for path in paths if not is_named(path, text)] == []


def is_named(path: str, text: str) -> bool:
    """Whether a path stands in a text: whole, or its last part behind a path with the same beginning."""
    if path.startswith("/v2/"):
        path = path.replace("/versions/{version}", "")
    beginning, _, last = path.rpartition("/")
    return bool(re.search(rf"[` ]{re.escape(path)}`", text)) or (f" {beginning}/" in text and f"`/{last}`" in text)


def test_the_page_for_operators_has_each_metric() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    families = prometheus.render(prometheus.Snapshot(counters={}, gauges={}, models=[])).decode()
    names = {name.removesuffix("_total") for name in re.findall(r"^# TYPE (\w+)", families, re.MULTILINE)}
    assert {name for name in names if f"`{name}" not in text} == set()


def test_the_page_for_operators_has_each_field_of_the_log() -> None:
    source = (ROOT / "service" / "http" / "access_log.py").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    fields = re.findall(r'line\["(\w+)"\] =', source)
    assert len(fields) > 10
    assert [field for field in fields if f"`{field}`" not in text] == []
