"""The network that the command line requests: depth and variant, both optional."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from export.errors import ExportError
from training.networks.resnet import Architecture, architecture

_SHORTCUTS = ("A", "B", "C")
_STRIDES = {"v1": "1x1", "v1.5": "3x3"}
VARIANTS = ("plain", *_SHORTCUTS, *_STRIDES)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """The requested network; None for options without a value."""

    depth: int | None = None
    plain: bool = False
    shortcut: str | None = None
    stride_in: str | None = None

    def architecture(self) -> Architecture:
        """Return the requested network. Raises ExportError if it does not exist."""
        if self.depth is None:
            raise ExportError("which network? Add --depth, such as --depth 20 or --depth 50")
        try:
            return architecture(f"{'plain' if self.plain else 'resnet'}{self.depth}", self.shortcut, self.stride_in)
        except ValueError as error:
            raise ExportError(f"{error}; choose another --depth or --variant") from None

    def contradictions(self, found: Architecture) -> list[str]:
        """Return how a network differs from the requested one, one phrase each; empty if it fits."""
        phrases = []
        if self.depth not in (None, found.depth):
            phrases.append(f"--depth is {self.depth}, the run's network has {found.depth} layers")
        if self.plain and found.shortcut is not None:
            phrases.append("--variant is plain, the run's network has shortcuts")
        if self.shortcut not in (None, found.shortcut):
            phrases.append(f"--variant is {self.shortcut}, the run's network has {_shortcuts_of(found)}")
        if self.stride_in not in (None, found.stride_in):
            phrases.append(f"--variant is {_name_of(self.stride_in)}, the run's network is {_name_of(found.stride_in)}")
        return phrases

    def __str__(self) -> str:
        words = ["plain"] if self.plain else []
        words += [word for word in (self.shortcut, _STRIDE_NAMES.get(self.stride_in)) if word]
        depth = "any depth" if self.depth is None else f"depth {self.depth}"
        return f"{depth}, variant {','.join(words)}" if words else depth


_STRIDE_NAMES: dict[Any, str] = {stride: name for name, stride in _STRIDES.items()}


def _name_of(stride_in: str | None) -> str:
    return _STRIDE_NAMES.get(stride_in, "without bottlenecks")


def _shortcuts_of(found: Architecture) -> str:
    return "none" if found.shortcut is None else f"shortcuts {found.shortcut}"


def parse_choice(depth: int | None, variants: Iterable[str]) -> NetworkSpec:
    """Return the choice of `--depth` and `--variant`; a variant may have several words between commas.

    Raises ExportError for words that are unknown or exclude each other.
    """
    plain, shortcuts, strides = False, [], []
    for word in (part.strip() for text in variants for part in text.split(",")):
        if word.lower() == "plain":
            plain = True
        elif word.upper() in _SHORTCUTS:
            shortcuts.append(word.upper())
        elif word.lower() in _STRIDES:
            strides.append(_STRIDES[word.lower()])
        else:
            raise ExportError(f"no variant is called {word!r}; --variant takes {', '.join(VARIANTS)}")
    if len(set(shortcuts)) > 1 or len(set(strides)) > 1 or (plain and shortcuts):
        raise ExportError("these variants exclude each other; give one of plain, A, B, C and one of v1, v1.5")
    return NetworkSpec(depth, plain, *(words[0] if words else None for words in (shortcuts, strides)))
