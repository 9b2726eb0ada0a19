"""The network in a file of another program: under whatever key, behind whatever prefix, with whatever last layer.

Training tools put a state dict beside their own facts, and a network into a module of their own, so that its names gain
a prefix: `state_dict` → `model.conv1.weight` in Lightning, `backbone.conv1.weight` and `head.fc.weight` in OpenMMLab.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from training.weights.checkpoint import CheckpointError

Log = Callable[[str], None]
Weights = dict[str, Tensor]

# Where training scripts keep the state dict in what they save; the averaged weights are the better ones.
_USUAL = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "network",
    "weights",
    "params",
)
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?)(?:[._]|$)")
_OPTIMIZER = re.compile(r"optim|(?:^|_)opt(?:_|$)|callback")  # what it keeps of each weight has a shape like it
_MOST_DEEP = 4
_CONVOLUTION = 4  # dimensions of its weights
# What wrappers of a module put into names: data parallelism (sharded or not), torch.compile, checkpointing.
_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_FIRST_BLOCK = re.compile(
    r"(.*\.)?(?:layer1\.0\.conv1\.weight|encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight)"
)
_BODY = re.compile(r"(?:conv1|bn1|layer\d+)\.")
_NORM = re.compile(r"layer\d+\.\d+\.bn\d\.weight")
_HEAD = re.compile(r"(?:fc|heads?|classifier|linear|last_linear|output|projector|projection_head)\.")
_MOST_SHOWN = 3


def state_dict_in(content: Any, path: Path, log: Log) -> Weights:
    """Return the tensors that a file's content holds for a network, by the names that they have there.

    Of several state dicts the averaged one is taken, else the one under the most usual key, which is logged. Raises
    CheckpointError where there is none, or none that is more usual than the others.
    """
    every = dict(_mappings(content))
    found = {key: tensors for key, tensors in every.items() if _has_convolutions(tensors)} or every
    if not found:
        raise CheckpointError(f"{path} holds no state dict (names and their tensors); give --weights a file that does")
    key = _most_usual(found)
    if key is None:
        raise CheckpointError(
            f"{path} holds several state dicts, {_listed(found)}; save only the intended one, best as .safetensors"
        )
    if len(found) > 1:
        log(f"{path.name} holds several state dicts, {_listed(found)}: {key} is taken")
    return found[key]


def _mappings(content: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Weights]]:
    """Yield each mapping with tensors in it, by the keys that lead to it; none of what an optimizer keeps."""
    if not isinstance(content, Mapping) or len(above) > _MOST_DEEP:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
        yield ".".join(above), tensors
    for key, value in named.items():
        if not _OPTIMIZER.search(key.lower()):
            yield from _mappings(value, (*above, key))


def _has_convolutions(tensors: Weights) -> bool:
    return any(tensor.ndim == _CONVOLUTION for tensor in tensors.values())


def _most_usual(names: Iterable[str]) -> str | None:
    """Return the name of averaged weights, else the most usual one; None where several are equally so."""

    def rank(name: str) -> tuple[bool, int]:
        places = [_USUAL.index(word) for word in (name, *name.split(".")) if word in _USUAL]
        return not _AVERAGED.search(name.lower()), min(places, default=len(_USUAL))

    ranked = sorted(names, key=rank)
    is_tied = len(ranked) > 1 and rank(ranked[0]) == rank(ranked[1])
    return None if is_tied else ranked[0]


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    return ", ".join(name or "(no key)" for name in shown[:_MOST_SHOWN]) + more


def unwrapped(weights: Weights, path: Path, log: Log) -> tuple[Weights, Weights]:
    """Return the tensors of a network without their common prefix, and those beside it.

    Raises CheckpointError for several networks of which none is averaged or under a more usual name, ValueError where
    names clash.
    """
    plain: Weights = {}
    for name, tensor in weights.items():
        short = ".".join(word for word in name.split(".") if word not in _WRAPPERS)
        if short in plain:
            raise ValueError(f"{path}: two tensors of this file are both {short}; save only the intended ones")
        plain[short] = tensor
    prefixes = {match[1] or "" for name in plain if (match := _FIRST_BLOCK.fullmatch(name))}
    several = f"{path} holds several networks, {_listed(sorted(prefixes))}"
    prefix = _most_usual(prefixes) if prefixes else ""
    if prefix is None:
        raise CheckpointError(f"{several}; save only the tensors of the intended one")
    if len(prefixes) > 1:
        log(f"{several}: {prefix or 'the one without a prefix'} is taken")
    inside = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
    return inside, {name: tensor for name, tensor in plain.items() if not name.startswith(prefix)}


def with_head(body: Weights, beside: Weights, path: Path, log: Log) -> Weights:
    """Return the weights of a network, under our names, with its last layer as `fc`, from any place in the file.

    Other tensors beside the network are left out, and so is one of several last layers; both are logged.
    """
    heads = {} if "fc.weight" in body else _linear_layers(body) or _linear_layers(beside, _channels(body))
    if len(heads) == 1:
        (name,) = heads
        renamed = {f"{name}{kind}": f"fc.{kind}" for kind in ("weight", "bias")}
        body = {renamed.get(key, key): tensor for key, tensor in (body | heads[name]).items()}
        beside = {key: tensor for key, tensor in beside.items() if key not in renamed}
    if "fc.weight" not in body:
        beside = beside | {key: tensor for key, tensor in body.items() if _HEAD.match(key)}
        body = {key: tensor for key, tensor in body.items() if not _HEAD.match(key)}
    left_out = [name for name, tensor in beside.items() if tensor.ndim]
    if left_out:
        log(f"left out of {path.name}, as no part of the network: {_listed(left_out)}")
    return body


def _channels(body: Weights) -> int:
    return max((len(tensor) for name, tensor in body.items() if _NORM.fullmatch(name)), default=0)


def _linear_layers(tensors: Weights, channels: int | None = None) -> dict[str, Weights]:
    """Return the layers with a matrix over so many channels, and a bias, that are no part of a network's body."""
    channels = _channels(tensors) if channels is None else channels
    found: dict[str, Weights] = {}
    for key, tensor in tensors.items():
        name = key.removesuffix("weight")
        is_linear = key.endswith("weight") and tensor.ndim == 2 and tensor.shape[1] == channels
        if is_linear and f"{name}bias" in tensors and not _BODY.match(key):
            found[name] = {key: tensor, f"{name}bias": tensors[f"{name}bias"]}
    return found
