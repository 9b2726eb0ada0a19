"""Version and commit of the running program: of the installed package, or of the checkout that it runs from."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import CompletedProcess, run

_PACKAGE = Path(__file__).parent
_UNKNOWN = "unknown"


def describe_version() -> str:
    """Return one line for people: the version, and the commit that the package was built from."""
    return f"resnet-service {package_version()}, commit {commit()}"


def package_version() -> str:
    """Return the version of the installed package, which `pyproject.toml` sets; "unknown" without an installation."""
    try:
        return version("resnet-service")
    except PackageNotFoundError:
        return _UNKNOWN


def commit() -> str:
    """Return the commit in the package, else of the checkout, with "+changes" for changed files, else "unknown"."""
    built = _PACKAGE / "commit.txt"
    if built.is_file():
        return built.read_text("ascii").strip()
    if not (_PACKAGE.parent / ".git").exists():
        return _UNKNOWN
    head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    if head.returncode != 0:
        return _UNKNOWN
    return head.stdout.strip() + ("+changes" if changes.stdout else "")


def _git(*words: str) -> "CompletedProcess[str]":
    try:
        return run(["git", *words], cwd=_PACKAGE, capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError:
        return CompletedProcess(words, 1, "", "")
