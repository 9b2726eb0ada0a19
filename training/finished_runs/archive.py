"""The archive of a run: `run.json`, `metrics.jsonl`, and the weights without the state for resuming.

Layers are stored in half precision, which halves the file. Vectors (batch-norm weights, statistics, biases) are
unchanged, because variances may be smaller than half precision can represent.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from training.runs.record import METRICS_FILE, RUN_FILE
from training.weights.checkpoint import WEIGHTS, find_weights, read_weights, write_whole

_LARGEST_HALF = 65_504.0  # float16's largest number


class ArchiveError(Exception):
    """The run cannot be archived. The message is one line that names the next step."""


def archive(run: Path, folder: Path) -> Path:
    """Write the archive of a run into a new or empty folder, and return the path of its weights.

    Raises ArchiveError for a folder with files, a `run` that is not a run folder, or a weight above 65,504. Raises
    CheckpointError if weights are incomplete.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ArchiveError(f"{folder} already has files; give another folder")
    missing = [name for name in (RUN_FILE, METRICS_FILE) if not (run / name).is_file()]
    if missing:
        raise ArchiveError(f"{run} has no {' and no '.join(missing)}; give a run folder of train-resnet run")
    weights = {name: _halved(name, tensor) for name, tensor in read_weights(find_weights(run)).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RUN_FILE, METRICS_FILE):
        shutil.copyfile(run / name, folder / name)
    write_whole(folder / WEIGHTS, save_safetensors(weights))
    return folder / WEIGHTS


def _halved(name: str, tensor: Tensor) -> Tensor:
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return tensor
    if not float(tensor.abs().max()) <= _LARGEST_HALF:
        raise ArchiveError(f"{name} has a value above {_LARGEST_HALF:,.0f}, which half precision cannot hold")
    return tensor.to(torch.float16).contiguous()
