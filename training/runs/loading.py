"""A trained network, rebuilt from the folder of its run."""

from dataclasses import dataclass
from pathlib import Path

from training.networks.resnet import ResNet, build, load_weights
from training.runs.record import RecordError, RunRecord, read_record, run_folder_of
from training.weights.checkpoint import CheckpointError, find_weights, read_weights


@dataclass(frozen=True, slots=True)
class Trained:
    """A network in evaluation mode, the path of its weights, and the record of its run."""

    network: ResNet
    run: Path
    weights: Path
    record: RunRecord

    def was_trained_on(self, data: Path) -> bool:
        """Return whether the run names this path, relative to the current folder or to a folder above the run."""
        starts = (Path.cwd(), *self.run.resolve().parents)
        return any((start / self.record.dataset.source).resolve() == data.resolve() for start in starts)


def read_trained(path: Path) -> Trained:
    """Return the network of a run folder, a checkpoint folder or a weights file inside a run.

    Raises CheckpointError, also if the run's record is missing or damaged.
    """
    run = run_folder_of(path)
    weights = find_weights(path)
    try:
        record = read_record(run)
        network = build(
            record.network,
            num_classes=len(record.labels),
            shortcut=record.shortcut,
            stride_in=record.stride_in,
            stem=record.stem,
        )
    except RecordError as error:
        raise CheckpointError(f"{error}; give another --checkpoint") from None
    try:
        load_weights(network, read_weights(weights))
    except ValueError as error:
        raise CheckpointError(f"{weights}: {error}; give another --checkpoint") from None
    return Trained(network.eval(), run, weights, record)
