"""A model on a GPU: batches of a few fixed sizes, in buffers that are allocated before the first request.

A batch is padded to the next size of 1, 2, 4 … largest. Each size is run once before requests are served, so that no
size is new to CUDA or TensorRT. Pixels and outputs are in page-locked memory that stays bound. If a batch does not fit
the GPU's memory, the largest size is halved permanently. The same applies if cuDNN has no algorithm for a size that is
tried. After an error that makes all later calls fail, DeviceLost is raised and the process should end.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.cuda_errors import is_fatal, is_out_of_memory
from service.engine.provider_options import INPUT, bucket_of, buckets

log = logging.getLogger(__name__)

Images = NDArray[np.uint8]


class DeviceLost(Exception):
    """CUDA does not respond to this process any more."""


class DeviceImages(Protocol):
    """Pixels in the GPU's memory."""

    def update_inplace(self, images: Images, /) -> None: ...


class Device(Protocol):
    """The source of buffers."""

    def images(self, shape: tuple[int, ...]) -> DeviceImages: ...

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...


class GpuSessions:
    """One session, warmed up in every batch size. `run` may be called from several threads, which take turns.

    Raises DeviceLost, and the exceptions of ONNX Runtime if a single image fails.
    """

    def __init__(self, session: Any, device: Device, *, largest_batch: int, tries_smaller: bool = True) -> None:
        """With `tries_smaller`, halve a size that fails in the warm-up; else let another provider run the model."""
        self.largest_batch = largest_batch
        self._tries_smaller = tries_smaller
        self._sizes = buckets(largest_batch)
        self._session, self._device = session, device
        self._turn = threading.Lock()
        self._bindings: dict[tuple[int, tuple[str, ...]], Any] = {}
        height, width = session.get_inputs()[0].shape[1:3]
        self._pixels: Images = device.host_array((largest_batch, height, width, 3), np.dtype(np.uint8))
        self._images: dict[int, DeviceImages] = {}
        self._answers = self._make_answers()
        self._is_warm = False
        self._warm_up()
        self._is_warm = True

    def run(self, images: Images, outputs: Sequence[str], *, exclusive: bool = False) -> list[NDArray[Any]]:
        """Return the named outputs for images, uint8 (N, height, width, 3). A GPU ignores `exclusive`."""
        parts = list(self._run_parts(images, tuple(outputs)))
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _run_parts(self, images: Images, outputs: tuple[str, ...]) -> Iterator[list[NDArray[Any]]]:
        done = 0
        while done < max(1, len(images)):
            part = images[done : done + self.largest_batch]
            answers = self._try(part, outputs)
            if answers is not None:
                yield answers
                done += max(1, len(part))

    def _try(self, images: Images, outputs: tuple[str, ...]) -> list[NDArray[Any]] | None:
        """Return the outputs, or None if the batch has to become smaller first."""
        try:
            with self._turn:
                return self._run_bucket(images, outputs)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class and no closed list
            text = str(error)
            if is_fatal(text):
                raise DeviceLost(text) from error
            is_to_halve, reason = True, "does not fit the GPU's memory"
            if not is_out_of_memory(text):
                self._check_device(outputs)
                is_to_halve = self._tries_smaller and not self._is_warm
                reason = f"cannot be run here ({' '.join(text.split())[:200]})"
            if len(images) <= 1 or not is_to_halve:
                raise
            self._halve(len(images), reason)
            return None

    def _run_bucket(self, images: Images, outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        count = len(images)
        bucket = bucket_of(count, self._sizes)
        binding = self._bindings.get((bucket, outputs)) or self._bind(bucket, outputs)
        self._pixels[:count] = images
        self._pixels[count:bucket] = 0
        self._images[bucket].update_inplace(self._pixels[:bucket])
        self._session.run_with_iobinding(binding)
        return [self._answers[name][:count].copy() for name in outputs]

    def _bind(self, bucket: int, outputs: tuple[str, ...]) -> Any:
        """Bind a batch size to its buffers permanently."""
        if bucket not in self._images:
            self._images[bucket] = self._device.images((bucket, *self._pixels.shape[1:]))
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT, self._images[bucket])
        for name in outputs:
            answer = self._answers[name][:bucket]
            binding.bind_output(name, "cpu", 0, answer.dtype.type, list(answer.shape), answer.ctypes.data)
        self._bindings[bucket, outputs] = binding
        return binding

    def _make_answers(self) -> dict[str, NDArray[Any]]:
        """Return a buffer of the largest batch for each output; one run gives their shapes."""
        names = [node.name for node in self._session.get_outputs()]
        answers = self._session.run(names, {INPUT: np.zeros((1, *self._pixels.shape[1:]), np.uint8)})
        return {
            name: self._device.host_array((self.largest_batch, *answer.shape[1:]), answer.dtype)
            for name, answer in zip(names, answers, strict=True)
        }

    def _warm_up(self) -> None:
        """Run every batch size, the largest first: its memory is enough for the others."""
        for size in reversed(self._sizes):
            if size <= self.largest_batch:
                self.run(np.zeros((size, *self._pixels.shape[1:]), np.uint8), tuple(self._answers))

    def _halve(self, count: int, reason: str) -> None:
        with self._turn:
            self.largest_batch = min(self.largest_batch, max(1, bucket_of(count, self._sizes) // 2))
        log.warning("a batch of %d %s; from now on at most %d", count, reason, self.largest_batch)

    def _check_device(self, outputs: tuple[str, ...]) -> None:
        """Raise DeviceLost if a black image fails as well: the batch was not the cause."""
        try:
            with self._turn:
                self._run_bucket(np.zeros((1, *self._pixels.shape[1:]), np.uint8), outputs)
        except Exception as error:
            raise DeviceLost(str(error)) from error
