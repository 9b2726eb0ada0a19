"""Checkpoints that are complete or absent.

    runs/<name>/checkpoints/<step>/   weights.safetensors  what to evaluate, export and serve (the average, if any)
                                      state.pt             what else resuming needs: optimizer, raw weights
                                      meta.json            step, and the sha256 of both files
    runs/<name>/checkpoints/latest    the step of the newest one

Each is made as a hidden folder, flushed to the disk, renamed in one step; only then does `latest` change. One that
takes the place of another of the same step moves that aside first, and readers find it there.
"""

import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

_KEPT = 2  # checkpoints a run keeps: the newest, and the one before it
_PARTIAL, _REPLACED = ".partial", ".replaced"
WEIGHTS, STATE, META = "weights.safetensors", "state.pt", "meta.json"


class CheckpointError(Exception):
    """A checkpoint cannot be written or read. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint read back: the step, the weights to serve, the state of the training."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]


def save(run: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write a checkpoint and return its folder. Raises CheckpointError, and then the earlier ones are untouched."""
    folder = run / "checkpoints"
    working, final = folder / f".{step}{_PARTIAL}", folder / str(step)
    aside = folder / f".{step}{_REPLACED}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_behind in folder.glob(f".*{_PARTIAL}"):  # by a process that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        _write(working, step, weights, state)
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        working.rename(final)
        write_whole(folder / "latest", f"{step}\n".encode())
    except (OSError, RuntimeError) as error:
        shutil.rmtree(working, ignore_errors=True)
        raise CheckpointError(
            f"cannot write the checkpoint of step {step} to {folder}: {_reason(error)}; "
            "the earlier ones are untouched: make room, then run again with --resume"
        ) from None
    shutil.rmtree(aside, ignore_errors=True)
    _remove_old(folder, keep=step)
    return final


def _write(working: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the files of a checkpoint into a new folder, and wait until they are on the disk."""
    working.mkdir()
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    (working / WEIGHTS).write_bytes(save_safetensors(contiguous))
    with (working / STATE).open("wb") as file:
        torch.save(state, file)
    digests = {name: sha256_of(working / name) for name in (WEIGHTS, STATE)}
    (working / META).write_text(json.dumps({"step": step, "sha256": digests}, indent=2))
    for path in (*working.iterdir(), working):
        flush(path)


def _reason(error: BaseException) -> str:
    """Return why a file cannot be written; torch.save wraps the operating system's error in a RuntimeError."""
    cause = error if isinstance(error, OSError) else error.__context__
    if not isinstance(cause, OSError):
        raise error
    return os.strerror(cause.errno or errno.EIO)


def _remove_old(folder: Path, keep: int) -> None:
    found = [path for step, path in _found(folder) if step <= keep]
    for path in found[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Return the steps of all checkpoints, whole or not, and their folders, the newest first."""
    if not folder.is_dir():
        return []
    named = {int(path.name): path for path in folder.iterdir() if path.name.isdigit()}
    aside = {
        int(path.name[1 : -len(_REPLACED)]): path
        for path in folder.glob(f".*{_REPLACED}")
        if path.name[1 : -len(_REPLACED)].isdigit()
    }
    return sorted((aside | named).items(), reverse=True)


def load_latest(run: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run, or None if there is none.

    A folder whose files do not match their digests is passed over for the one before it. Raises CheckpointError if
    there are checkpoints and none is whole.
    """
    found = _found(run / "checkpoints")
    for step, folder in found:
        if _is_whole(folder):
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            return Checkpoint(step, read_weights(folder / WEIGHTS), state)
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {run / 'checkpoints'} is whole; start again in a new folder"
        )
    return None


def _is_whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / META).read_text())["sha256"]
        return all(sha256_of(folder / name) == digests[name] for name in (WEIGHTS, STATE))
    except (OSError, ValueError, KeyError):
        return False


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises CheckpointError if it is not one."""
    try:
        return load_safetensors(path.read_bytes())
    except (OSError, SafetensorError):
        raise CheckpointError(
            f"{path} is not a readable safetensors file; give another file, or a run folder"
        ) from None


def find_weights(run_or_checkpoint: Path) -> Path:
    """Return the weights file of a run folder, a checkpoint folder, or the file itself. Raises CheckpointError."""
    path = run_or_checkpoint
    if path.is_file():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    for _, folder in _found(path / "checkpoints"):
        if _is_whole(folder):
            return folder / WEIGHTS
    raise CheckpointError(
        f"{path} holds no checkpoint; give a run folder made by train-resnet run, or a .safetensors file"
    )


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, meets the old content or the new one, never a part."""
    working = path.with_name(f".{path.name}.partial")
    with working.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    working.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
