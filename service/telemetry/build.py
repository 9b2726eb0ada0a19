"""Versions of this server and of what runs it, read from the metadata of the installed packages."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")  # packages of the same module


@cache
def build_versions() -> dict[str, str]:
    """Return version by component; the runtime is `unknown` where none of its packages is installed."""
    runtimes = [f"{name} {found}" for name in _RUNTIMES if (found := _version_of(name)) is not None]
    return {
        "version": _version_of("resnet-service") or "unknown",
        "python": platform.python_version(),
        "runtime": ", ".join(runtimes) or "unknown",
    }


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
