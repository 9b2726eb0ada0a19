"""Metrics of a network: errors, calibration, and the temperature that corrects it.

Every image counts once, with one view of it or the mean score of several. Calibration follows Guo et al. 2017, *On
calibration of modern neural networks*: one temperature on held-out logits, and the expected calibration error over 15
bins of confidence.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.errors import ServiceError
from service.images.preprocessing import decode, resize_and_crop
from training.data.image_arrays import Images
from training.evaluation.crop_views import Pixels, Size, Views

_Batch = list[list[Pixels]]  # the views of each image

_BINS = 15  # of confidence, as in Guo et al. 2017
_PIXELS_AT_A_TIME = 512_000  # 500 of CIFAR's images
_SMALLEST_SCORE = 1e-300  # above 0, so that it has a logarithm
# A strip of 12,000 by 10 pixels would become a map of 768,000 by 640; of a longer image only the middle is used.
_MAX_ASPECT_RATIO = 4


@dataclass(frozen=True, slots=True)
class Errors:
    """Top-1 and top-5 error in percent, mean cross-entropy, and the number of images."""

    top1: float
    top5: float
    loss: float
    images: int


@dataclass(frozen=True, slots=True)
class TemperatureFit:
    """The temperature that minimises the cross-entropy of held-out images, and the calibration error with it."""

    temperature: float
    expected_calibration_error: float
    expected_calibration_error_before: float  # with temperature 1
    images: int


def images_at_a_time(images: Images) -> int:
    """Return the batch size for images (N, H, W, 3): half a million pixels."""
    return max(1, _PIXELS_AT_A_TIME // (images.shape[1] * images.shape[2]))


def logits_of(
    model: nn.Module,
    images: Images,
    to_input: Callable[[Tensor], Tensor],
    *,
    batch_size: int | None = None,
    threads: int = 1,
) -> Tensor:
    """Return the logits, float32 (N, classes), of uint8 images (N, H, W, 3); the model is put in evaluation mode.

    `to_input` converts a batch of images to the network's input: normalized, (N, 3, H, W). `threads` batches, by
    default of half a million pixels, are computed in parallel; the result does not depend on their number.
    """
    model.eval()
    size = batch_size or images_at_a_time(images)

    @torch.inference_mode()
    def logits(start: int) -> Tensor:
        batch = torch.from_numpy(np.array(images[start : start + size]))
        return cast(Tensor, model(to_input(batch)).float().cpu())

    pool = _one_core_each(threads)
    try:
        return torch.cat(list(pool.map(logits, range(0, len(images), size))))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a stopped run waits for no thread


def _one_core_each(threads: int) -> ThreadPoolExecutor:
    """Return threads that compute with one core each; with a single thread PyTorch's setting stays."""
    if threads == 1:
        return ThreadPoolExecutor(1)
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def views_in(content: bytes, views: Views, interpolation: str) -> list[Pixels] | str:
    """Return the views of a file's image, decoded and resized by the service's code, or the reason of a failure."""
    try:
        image, _ = decode(content)
    except ServiceError as error:
        return error.message

    def resize(shorter_side: int, crop: Size | None) -> Pixels:
        return resize_and_crop(image, shorter_side, crop or _whole(image.size, shorter_side), interpolation)

    return views.of(resize)


def _whole(size: tuple[int, int], shorter_side: int) -> Size:
    """Return height and width of a resized image; `size` is width and height."""
    width, height = (min(int(shorter_side * side / min(size)), _MAX_ASPECT_RATIO * shorter_side) for side in size)
    return height, width


@torch.inference_mode()
def log_scores_of(
    model: nn.Module,
    images: Iterable[list[Pixels]],
    to_input: Callable[[Tensor], Tensor],
    pixels_at_a_time: int = 250_000,
    threads: int = 1,
) -> Tensor:
    """Return the logarithm of each image's score (softmax, the mean over its views), float64 (N, classes).

    Such logarithms are valid logits, with the same order, softmax and best temperature. The model is put in evaluation
    mode. `to_input` is as in `logits_of`, `pixels_at_a_time` the size of batches, of which `threads` are computed in
    parallel.
    """
    model.eval()
    batches = _batches(images, pixels_at_a_time)
    parts = list(_side_by_side(lambda batch: _mean_scores(model, batch, to_input), batches, threads))
    return torch.cat(parts).clamp(min=_SMALLEST_SCORE).log() if parts else torch.empty(0, 0, dtype=torch.float64)


def _side_by_side(compute: Callable[[_Batch], Tensor], batches: Iterable[_Batch], threads: int) -> Iterator[Tensor]:
    """Yield the result of each batch in order; one batch more than there are threads is read ahead."""
    with _one_core_each(threads) as pool:
        under_way: deque[Future[Tensor]] = deque()
        for batch in batches:
            under_way.append(pool.submit(compute, batch))
            if len(under_way) > threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _batches(images: Iterable[list[Pixels]], pixels_at_a_time: int) -> Iterator[_Batch]:
    batch: _Batch = []
    pixels = 0
    for views in images:
        batch.append(views)
        pixels += sum(view.shape[0] * view.shape[1] for view in views)
        if pixels >= pixels_at_a_time:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


@torch.inference_mode()
def _mean_scores(model: nn.Module, batch: _Batch, to_input: Callable[[Tensor], Tensor]) -> Tensor:
    """Return scores float64 (images, classes); views of one size go through the network together."""
    of_size: defaultdict[tuple[int, ...], list[tuple[int, Pixels]]] = defaultdict(list)
    for image, views in enumerate(batch):
        for view in views:
            of_size[view.shape].append((image, view))
    owners: list[int] = []
    scores: list[Tensor] = []
    for group in of_size.values():
        owners += [image for image, _ in group]
        logits = model(to_input(torch.from_numpy(np.stack([view for _, view in group]))))
        scores.append(logits.double().softmax(1).cpu())
    joined, places = torch.cat(scores), torch.tensor(owners)
    sums = torch.zeros(len(batch), joined.shape[1], dtype=torch.float64).index_add_(0, places, joined)
    return sums / places.bincount(minlength=len(batch))[:, None]


def errors_of(logits: Tensor, labels: Tensor) -> Errors:
    """Compare logits (N, classes) with labels int64 (N,)."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = (best == labels[:, None]).cpu()
    return Errors(
        top1=100 * (~right[:, 0]).double().mean().item(),
        top5=100 * (~right.any(dim=1)).double().mean().item(),
        loss=F.cross_entropy(logits, labels).item(),
        images=len(labels),
    )


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean gap between confidence and accuracy over equal bins of confidence, weighted by their images."""
    confidence, chosen = probabilities.max(dim=1)
    right = (chosen == labels).float()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gaps = torch.zeros(_BINS).index_add_(0, bins, right - confidence)
    return (gaps.abs().sum() / len(labels)).item()


def fit_temperature(logits: Tensor, labels: Tensor, caution: float = 0.0) -> TemperatureFit:
    """Return the temperature in 0.05…20 with the smallest cross-entropy, found by golden-section search.

    `logits` are float (N, classes), `labels` int64 (N,). `caution` pulls the temperature towards 1, less with more
    images: if a few images are all classified correctly, the best temperature would be the lowest, and every answer
    certain.
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        doubt = caution * log_temperature**2 / len(labels)
        return F.cross_entropy(logits / np.exp(log_temperature), labels).item() + doubt

    ratio = (5**0.5 - 1) / 2
    low, high = np.log(0.05), np.log(20.0)
    while high - low > 1e-6:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    temperature = float(np.exp((low + high) / 2))
    return TemperatureFit(
        temperature=temperature,
        expected_calibration_error=expected_calibration_error((logits / temperature).softmax(1).float(), labels),
        expected_calibration_error_before=expected_calibration_error(logits.softmax(1).float(), labels),
        images=len(labels),
    )
