"""A limit on how often each word of a private vocabulary occurs in code, tests and documents.

The limits of `LIMITS` equal the counts of the day of the last change. They only go down: a change that removes a word
lowers its limit, and none raises one. Public names that contain such a word do not count; `PUBLIC_NAMES` lists them.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Kind of file → where its files are.
KINDS = {
    "code": ("service", "resnet_service", "training", "export", "benchmarks", "docker", "Makefile"),
    "tests": ("tests",),
    "docs": ("*.md", "docs"),
}
ENDINGS = {".py", ".js", ".html", ".css", ".md", ".toml", ".yml", ".lua"}
NOT_OURS = ("service/web/swagger-ui/", "training/results/", "tests/fixtures/", "tests/test_words.py")

# Word → the most occurrences in code, tests and docs. Limits only go down.
LIMITS: dict[str, tuple[int, int, int]] = {
    "alone": (22, 53, 9),
    "anybody": (0, 1, 0),
    "asked": (23, 92, 0),
    "board": (0, 16, 0),
    "deaf": (0, 0, 0),
    "everybody": (0, 4, 0),
    "hear": (0, 0, 0),
    "heard": (0, 3, 0),
    "hears": (0, 5, 0),
    "insist": (0, 0, 0),
    "insists": (0, 0, 0),
    "jury": (0, 0, 0),
    "mended": (0, 0, 0),
    "nobody": (0, 42, 0),
    "offspring": (0, 0, 0),
    "patiently": (0, 0, 0),
    "picture": (0, 1, 0),
    "pictures": (0, 0, 0),
    "pulse": (0, 0, 0),
    "room": (4, 61, 0),
    "rooms": (0, 0, 0),
    "takeover": (0, 0, 0),
    "tell": (6, 0, 0),
    "tells": (0, 1, 0),
    "told": (0, 49, 0),
    "wanted": (9, 60, 0),
    "whoever": (1, 6, 0),
}

# Names of metrics, log fields, report keys and API fields, whose readers depend on them, and of Python's own methods.
PUBLIC_NAMES = (
    "resnet_pictures",  # metric
    '"pictures"',  # log field and OpenAPI tag
    "`pictures`",  # log field in docs/operations.md
    "trained_on_these_pictures",  # key of an evaluation
    "per_picture",  # key of an evaluation
    ".tell()",  # method of a file
)
_PUBLIC_NAMES = re.compile("|".join(re.escape(name) for name in PUBLIC_NAMES))


@dataclass(frozen=True, slots=True)
class Found:
    """An occurrence of a word."""

    word: str
    place: str  # file:line


def pattern_of(words: Iterable[str]) -> re.Pattern[str]:
    """Return what finds these words, also as parts of identifiers: `is_wanted`, `_Board`."""
    return re.compile(rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])", re.IGNORECASE)


def occurrences(text: str, name: str, words: Iterable[str]) -> Iterator[Found]:
    """Yield each of these words in a file's text, public names apart."""
    pattern = pattern_of(words)
    for number, line in enumerate(text.splitlines(), start=1):
        for match in pattern.finditer(_PUBLIC_NAMES.sub("", line)):
            yield Found(match.group().lower(), f"{name}:{number}")


def files_of(kind: str) -> list[Path]:
    """Return the files of a kind: what git tracks or may come to track, without ignored and generated ones."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *KINDS[kind]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.splitlines() if not name.startswith(NOT_OURS)]
    paths = [ROOT / name for name in names]
    return [path for path in paths if path.is_file() and (path.suffix in ENDINGS or path.suffix == "")]


def excess(found: list[Found], limits: dict[str, int]) -> str:
    """Return a line for each word that occurs too often, with the places of all its occurrences."""
    lines = []
    for word, most in limits.items():
        places = [one.place for one in found if one.word == word]
        if len(places) > most:
            lines.append(f"{word!r} occurs {len(places)} times, at most {most} are allowed: {', '.join(places)}")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_of_the_list_occurs_more_often_than_its_limit(kind: str) -> None:
    files, column = files_of(kind), list(KINDS).index(kind)
    assert len(files) > 10
    limits = {word: counts[column] for word, counts in LIMITS.items()}
    found = [
        one
        for path in files
        for one in occurrences(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)), limits)
    ]
    assert excess(found, limits) == "", 'use the terms of the field instead; see "Style" in CONTRIBUTING.md'


def test_words_are_found_in_prose_and_in_identifiers_but_not_inside_words() -> None:
    text = "Nobody is told.\nself._board = is_wanted\nboarding mushroom keyboard\n"
    found = list(occurrences(text, "a.py", ["nobody", "told", "board", "wanted", "room"]))
    assert [(one.word, one.place) for one in found] == [
        ("nobody", "a.py:1"),
        ("told", "a.py:1"),
        ("board", "a.py:2"),
        ("wanted", "a.py:2"),
    ]


def test_public_names_do_not_count() -> None:
    found = occurrences('counts["resnet_pictures", kind]\nline["pictures"] = pictures\n', "a.py", ["pictures"])
    assert [one.place for one in found] == ["a.py:2"]


def test_a_word_above_its_limit_is_named_with_each_place() -> None:
    found = [Found("told", "a.py:1"), Found("told", "b.py:7"), Found("jury", "b.py:9")]
    assert excess(found, {"told": 2, "jury": 1}) == ""
    assert excess(found, {"told": 1, "jury": 1}) == "'told' occurs 2 times, at most 1 are allowed: a.py:1, b.py:7"
