"""The records of `train-resnet loss-surface`: the loss around the weights of runs."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from training.report.runs import ReportError, Run
from training.runs.record import first_fault

SURFACE_FILE = "loss-surface.json"
_NEAR = 1.0  # of cross-entropy above the loss at the weights


class LossSurface(BaseModel):
    """The mean cross-entropy on a square of the plane of two directions; the weights are in its middle."""

    model_config = ConfigDict(frozen=True)

    network: str
    dataset: str
    images: int
    coordinates: list[FiniteFloat]
    loss: list[list[FiniteFloat]]  # a row for each y, a column for each x

    @property
    def at_the_weights(self) -> float:
        middle = len(self.coordinates) // 2
        return self.loss[middle][middle]

    @property
    def share_near(self) -> float:
        """The share of the points whose loss is at most 1 above that at the weights."""
        values = [value for row in self.loss for value in row]
        return sum(value <= self.at_the_weights + _NEAR for value in values) / len(values)


def read_surfaces(runs_folder: Path, runs: Iterable[Run]) -> dict[str, LossSurface]:
    """Return the surfaces that are in run folders, by the run's name. Raises ReportError for a damaged one."""
    files = {run.name: runs_folder / run.name / SURFACE_FILE for run in runs}
    return {name: _read(file) for name, file in files.items() if file.is_file()}


def _read(file: Path) -> LossSurface:
    try:
        found = LossSurface.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ReportError(f"{file} has no usable {first_fault(error)}; make it anew, or remove it") from None
    side = len(found.coordinates)
    if side < 3 or len(found.loss) != side or any(len(row) != side for row in found.loss):
        raise ReportError(f"{file} has no square of losses; make it anew, or remove it")
    return found
