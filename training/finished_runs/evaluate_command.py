"""`train-resnet evaluate`: all usual metrics of a run's network on images in folders.

Output: evaluation.json (all numbers), confusion_matrix.png, and skipped.csv if some files cannot be decoded. Images are
read one by one, so their number may exceed the memory or the disk.
"""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from service.images.preprocessing import usual_resizer
from service.system.cores import available_cores
from training.data.dataset import opened, refuse_too_many_skipped, write_skipped
from training.data.normalization import Normalize
from training.data_files.parts import part_to_measure
from training.evaluation.class_metrics import balanced_accuracy, class_measures, confusion_matrix, draw_confusion_matrix
from training.evaluation.crop_views import Pixels, Views, choose
from training.evaluation.evaluate import errors_of, fit_temperature, log_scores_of, views_in
from training.hardware.devices import choose as hardware_for
from training.runs.loading import Trained, read_trained
from training.weights.checkpoint import sha256_of, write_whole

_PIXELS_AT_A_TIME = {"cpu": 250_000, "cuda": 4_000_000}  # bounded by the caches of a CPU, or the memory of a GPU
_FILES_AT_A_TIME = 64  # decoded in parallel
_MOST_CLASSES_SHOWN = 20


class EvaluationError(Exception):
    """An evaluation is not possible. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """Logarithms of scores float64 (N, classes), labels int64 (N,), and the skipped files with reasons."""

    log_scores: Tensor
    labels: Tensor
    skipped: list[tuple[str, str]]


def evaluate(
    checkpoint: Path,
    data: Path,
    views: str = "centre",
    out: Path | None = None,
    *,
    max_skipped: float | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> tuple[dict[str, Any], Path]:
    """Return the content of evaluation.json and its folder, by default <run>/evaluation/<views>.

    Raises EvaluationError, CheckpointError, DataError, or ValueError for unknown views.
    """
    trained = read_trained(checkpoint)
    record = trained.record
    chosen = choose(views, record.preprocessing.shorter_side, record.preprocessing.crop)
    data = part_to_measure(data.expanduser(), log)
    out = out or trained.run / "evaluation" / views
    _make(out)
    log(f"evaluating {trained.network.architecture.network} of {trained.run} on {data}; {chosen}")
    is_known = trained.was_trained_on(data)
    if is_known:
        max_skipped = 1.0  # the run has accepted these files
    elif max_skipped is None:
        max_skipped = record.max_skipped
    scored = _score(trained, data, chosen, max_skipped, log)
    held_out = _held_out(trained, scored) if is_known else None
    leading = held_out or scored
    matrix = confusion_matrix(leading.log_scores.argmax(1), leading.labels, len(record.labels))
    facts = _about(trained, data, chosen, leading) | _measured(leading, matrix, record.labels)
    facts |= {"trained_on_these_pictures": is_known, "held_out": None, "all_images": None}
    if is_known and held_out is None:
        log("the network was trained on these images; expect larger errors on new ones")
    if held_out:
        log(f"{len(held_out.labels):,} of these {len(scored.labels):,} images were held out of training; these count")
        facts |= {"held_out": _errors(held_out), "all_images": _errors(scored)}
    _write(out, facts, matrix, scored.skipped, log)
    return facts, out


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return
        reason = "no permission"
    except OSError as error:
        reason = error.strerror or "it cannot be made"
    raise EvaluationError(f"cannot write to {folder}: {reason}; give another --out")


def _score(trained: Trained, data: Path, views: Views, max_skipped: float, log: Callable[[str], None]) -> _Scored:
    labels: list[int] = []
    skipped: list[tuple[str, str]] = []
    known = trained.record.labels
    with opened(data) as (classes, read):
        _refuse_other_classes(tuple(classes), known, log)

        def images() -> Iterator[list[Pixels]]:
            for file, label, seen in _seen(classes, trained, read, views):
                if isinstance(seen, str):
                    skipped.append((str(file), seen))
                else:
                    labels.append(label)
                    yield seen

        hardware = hardware_for("fp32", "off")
        to_input, pixels = _to_input(trained, hardware.device), _PIXELS_AT_A_TIME[hardware.device]
        log_scores = log_scores_of(trained.network, images(), to_input, pixels, hardware.evaluation_threads)
    counts = Counter(labels)
    present = [label for label, name in enumerate(known) if name in classes]
    counts_of_present = Counter({place: counts[label] for place, label in enumerate(present)})
    refuse_too_many_skipped(
        [trained.record.labels[label] for label in present], counts_of_present, skipped, max_skipped
    )
    if not log_scores.isfinite().all():
        raise EvaluationError(f"the network of {trained.run} returns numbers that are not finite; train it again")
    return _Scored(log_scores, torch.tensor(labels), skipped)


def _refuse_other_classes(classes: tuple[str, ...], labels: tuple[str, ...], log: Callable[[str], None]) -> None:
    """Raise EvaluationError for classes that the network does not know; the data may have fewer classes."""
    unknown, absent = sorted(set(classes) - set(labels)), sorted(set(labels) - set(classes))
    if absent and not unknown:
        log(f"no images of {_first_few(absent)}; these classes are not measured")
    if unknown:
        parts = (("of the data only", unknown), ("of the run only", absent))
        described = "; ".join(f"{whose}: {_first_few(names)}" for whose, names in parts if names)
        raise EvaluationError(f"the data does not have the classes of the run ({described}); give other --data")


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _seen(
    classes: dict[str, list[PurePosixPath]], trained: Trained, read: Callable[[PurePosixPath], bytes], views: Views
) -> Iterator[tuple[PurePosixPath, int, list[Pixels] | str]]:
    """Yield each file with its label and its views, or the reason why it has none, in order; threads decode ahead."""
    label_of = {name: label for label, name in enumerate(trained.record.labels)}
    files = [(file, label_of[name]) for name, files in classes.items() for file in files]
    console = Console(stderr=True)
    starts = range(0, len(files), _FILES_AT_A_TIME)
    with ThreadPoolExecutor(available_cores()) as threads:
        for start in track(starts, "evaluating", console=console, disable=not console.is_terminal):
            part = files[start : start + _FILES_AT_A_TIME]
            contents = [_content(read, file) for file, _ in part]  # a tar is read by one thread
            seen = threads.map(lambda content: _views(content, trained, views), contents)
            for (file, label), result in zip(part, seen, strict=True):
                yield file, label, result


def _content(read: Callable[[PurePosixPath], bytes], file: PurePosixPath) -> bytes | None:
    try:
        return read(file)
    except OSError:
        return None


def _views(content: bytes | None, trained: Trained, views: Views) -> list[Pixels] | str:
    return "cannot be read" if content is None else views_in(content, views, trained.record.preprocessing.interpolation)


def _to_input(trained: Trained, device: str) -> Callable[[Tensor], Tensor]:
    """Return the function from pixels to the network's input, and move the network to the device.

    The mean image of the paper's CIFAR recipe is stretched to views of other sizes.
    """
    preprocessing = trained.record.preprocessing
    normalize = Normalize(preprocessing.mean, preprocessing.standard_deviation, device)
    network = trained.network.to(device)
    mean, network.pixel_mean = network.pixel_mean, None

    def to_input(views: Tensor) -> Tensor:
        images = normalize.channels_first(views)
        if mean is None:
            return images
        return images - F.interpolate(mean[None], size=images.shape[2:], mode="bilinear", align_corners=False)

    return to_input


def _about(trained: Trained, data: Path, views: Views, scored: _Scored) -> dict[str, Any]:
    return {
        "network": trained.network.architecture.network,
        "checkpoint": str(trained.weights),
        "checkpoint_sha256": sha256_of(trained.weights),
        "data": str(data),
        "views": dataclasses.asdict(views) | {"per_picture": views.count},
        "images": len(scored.labels),
        "resizer": usual_resizer(),
        "skipped": len(scored.skipped),
    }


def _measured(scored: _Scored, matrix: Tensor, labels: Sequence[str]) -> dict[str, Any]:
    """Return all numbers: errors in percent, all others as fractions of 1."""
    errors, fit = errors_of(scored.log_scores, scored.labels), fit_temperature(scored.log_scores, scored.labels)
    classes = class_measures(matrix, labels)
    return {
        "top1_error": errors.top1,
        "top5_error": errors.top5,
        "loss": errors.loss,
        "balanced_accuracy": balanced_accuracy(matrix),
        "macro_f1": sum(measured.f1 for measured in classes) / len(classes),
        "calibration": {
            "expected_calibration_error": fit.expected_calibration_error_before,
            "temperature": fit.temperature,
            "expected_calibration_error_with_temperature": fit.expected_calibration_error,
        },
        "classes": [dataclasses.asdict(measured) for measured in classes],
        "confusion_matrix": matrix.tolist(),  # rows: true classes; columns: predicted ones
    }


def _held_out(trained: Trained, scored: _Scored) -> _Scored | None:
    """Return the results of the run's held-out images; None without them, or if some are missing."""
    held_out = trained.record.held_out
    if not held_out or max(held_out) >= len(scored.labels):
        return None
    places = torch.tensor(held_out)
    return _Scored(scored.log_scores[places], scored.labels[places], scored.skipped)


def _errors(scored: _Scored) -> dict[str, Any]:
    errors = errors_of(scored.log_scores, scored.labels)
    return {"images": errors.images, "top1_error": errors.top1, "top5_error": errors.top5, "loss": errors.loss}


def _write(
    out: Path, facts: dict[str, Any], matrix: Tensor, skipped: list[tuple[str, str]], log: Callable[[str], None]
) -> None:
    title = f"{facts['network']}, {facts['views']['name']}: {facts['top1_error']:.2f}% error on {facts['images']:,}"
    labels = [measured["label"] for measured in facts["classes"]]
    try:
        draw_confusion_matrix(matrix, labels, out / "confusion_matrix.png", title)
        (out / "skipped.csv").unlink(missing_ok=True)  # of an earlier evaluation
        if skipped:
            write_skipped(skipped, out / "skipped.csv")
            log(f"skipped {len(skipped)} files; {out / 'skipped.csv'} lists them with reasons")
        write_whole(out / "evaluation.json", (json.dumps(facts, indent=1) + "\n").encode())
    except OSError as error:
        raise EvaluationError(f"cannot write to {out}: {error.strerror}; give another --out") from None


def table(facts: dict[str, Any]) -> str:
    """Return a short evaluation: the errors, the calibration, and the classes (the worst, if there are many)."""
    calibration, classes = facts["calibration"], facts["classes"]
    whose = "held-out images" if facts["held_out"] else "images"
    lines = [
        f"top-1 error {facts['top1_error']:.2f}%, top-5 error {facts['top5_error']:.2f}%, "
        f"balanced accuracy {facts['balanced_accuracy']:.2%}, {facts['images']:,} {whose}",
        f"expected calibration error {calibration['expected_calibration_error']:.4f}; "
        f"{calibration['expected_calibration_error_with_temperature']:.4f} with temperature "
        f"{calibration['temperature']:.3f}, the best for these images",
    ]
    if every := facts["all_images"]:
        lines.append(f"with the training images: top-1 error {every['top1_error']:.2f}%, {every['images']:,} images")
    if len(classes) > _MOST_CLASSES_SHOWN:
        classes = sorted(classes, key=lambda measured: measured["f1"])[:_MOST_CLASSES_SHOWN]
        lines.append(f"the {len(classes)} worst of {len(facts['classes'])} classes:")
    width = max(len("class"), *(len(measured["label"]) for measured in classes))
    lines.append(f"{'class':{width}} {'images':>9} {'precision':>9} {'recall':>9} {'F1':>9}")
    lines += [
        f"{measured['label']:{width}} {measured['images']:9,} {measured['precision']:9.2%} {measured['recall']:9.2%} "
        f"{measured['f1']:9.2%}"
        for measured in classes
    ]
    return "\n".join(lines)
