"""The rule for the default model, which answers requests that name none.

Models of the user precede those of this project. Among the latter, ImageNet's 1,000 classes precede everyday things,
and these precede CIFAR-10. Untrained networks (`export-onnx --weights random`) are last.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SHIPPED_MODEL = "everyday-resnet18-int8"  # the default among the shipped models
_CIFAR10_DEFAULT = "cifar10-resnet56"
RULE = "your own, else imagenet-*, else everyday-*, else cifar10-*"  # for help and documents
_OURS = ("imagenet-", "everyday-", "cifar10-", "random-")  # prefixes of names, the preferred one first
_LOWERED = re.compile(r"-(fp16|int8)$")  # the precision, which an export appends to a name
_DEPTH = re.compile(r"(?:resnet|plain)([0-9]+)$")


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The name of a model, and in a few words why it is the default."""

    name: str
    reason: str


class AmbiguousDefault(Exception):
    """Several models of the user could be the default: `names`."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def default_of(names: Iterable[str]) -> DefaultModel:
    """Return the default of at least one model, by their names. Raises AmbiguousDefault."""
    given = sorted(set(names))
    if len(given) == 1:
        return DefaultModel(given[0], "the only model")
    own = [name for name in given if not name.startswith(_OURS)]
    if own:
        return _of_own(own)
    prefix = next(prefix for prefix in _OURS if any(name.startswith(prefix) for name in given))
    group = [name for name in given if name.startswith(prefix)]
    return DefaultModel(
        min(group, key=_rank), f"there is none of your own, and of this project's {prefix}* comes first"
    )


def _of_own(names: list[str]) -> DefaultModel:
    """Return the only own model. A lower precision of a model counts as the same model, after the full one."""
    if len({_LOWERED.sub("", name) for name in names}) > 1:
        raise AmbiguousDefault(names)
    return DefaultModel(min(names, key=_rank), "models of your own come before those of this project")


def _rank(name: str) -> tuple[bool, bool, int, str]:
    """Order the models of a group: the larger shipped CIFAR-10 model, full precision, the deepest network."""
    depth = _DEPTH.search(_LOWERED.sub("", name))
    return name != _CIFAR10_DEFAULT, bool(_LOWERED.search(name)), -int(depth[1]) if depth else 0, name
