"""The record of `train-resnet initial-signals`: what signals and gradients do before any training."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from training.report.runs import ReportError
from training.runs.record import first_fault

SIGNALS_FILE = "initial-signals.json"


class NetworkSignals(BaseModel):
    """One network at initialization; the lists have a value for each convolution, first layer first."""

    model_config = ConfigDict(frozen=True)

    label: str
    network: str
    batch_norm: bool
    initialization: str
    response: list[FiniteFloat]  # standard deviation before the activation
    backward: list[FiniteFloat]  # norm of the loss gradient with respect to that response
    gradient_over_weight: list[FiniteFloat]  # norm of the weights' gradient over the norm of the weights


class InitialSignals(BaseModel):
    """Networks on one batch of images."""

    model_config = ConfigDict(frozen=True)

    images: int
    dataset: str
    seeds: list[int]
    networks: list[NetworkSignals]

    @property
    def control(self) -> NetworkSignals | None:
        """The network whose backward signal vanishes most on its way from the last layer to the first."""
        return min(self.networks, key=first_over_last, default=None)


def first_over_last(found: NetworkSignals) -> float:
    """Return the backward signal at the first layer over that at the last layer."""
    return found.backward[0] / found.backward[-1]


def read_signals(runs_folder: Path) -> InitialSignals | None:
    """Return the record beside the run folders, or None if there is none. Raises ReportError for a damaged one."""
    file = runs_folder / SIGNALS_FILE
    if not file.is_file():
        return None
    try:
        return InitialSignals.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ReportError(f"{file} has no usable {first_fault(error)}; make it anew, or remove it") from None
