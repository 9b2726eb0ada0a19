"""A process that decodes images for a training run, and ends with the process that started it.

A request is a line of JSON on standard input; its answer, on standard output, is a line of JSON followed by the
pixels. The process holds no state: its answers depend only on the request and the files. It never imports
torch, so that it starts quickly and stays small.
"""

import contextlib
import hashlib
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.images.preprocessing import decode_reduced, image_to_pixels
from training.data.crops import CropSpec, random_of
from training.data_files.listing import Place

UNREADABLE = "cannot be read"


@dataclass(frozen=True, slots=True)
class Request:
    """Images to decode, and the crop to cut out of each; `draws` are (seed, step, position) for its chance."""

    places: Sequence[Place]
    crop: CropSpec
    draws: Sequence[tuple[int, int, int]] = ()
    with_digests: bool = False

    def line(self) -> bytes:
        """Return the request as it is sent."""
        crop = {name: getattr(self.crop, name) for name in CropSpec.__dataclass_fields__}
        places = [(place.path, place.offset, place.length, place.is_deflated) for place in self.places]
        content = {"places": places, "crop": crop, "draws": list(self.draws), "with_digests": self.with_digests}
        return json.dumps(content).encode() + b"\n"

    @classmethod
    def parsed(cls, line: bytes) -> "Request":
        """Return the request of a line."""
        content = json.loads(line)
        places = [Place(*place) for place in content["places"]]
        draws = [tuple(draw) for draw in content["draws"]]
        return cls(places, CropSpec(**content["crop"]), draws, content["with_digests"])


@dataclass(frozen=True, slots=True)
class Decoded:
    """The reply to a request: uint8 (n, size, size, 3) of the decoded images, and position → reason of the others.

    If requested, the digests are those of the files that could be decoded.
    """

    pixels: NDArray[np.uint8]
    failed: dict[int, str]
    digests: Sequence[int] = ()


def answer(request: Request) -> Decoded:
    """Decode the images of a request, one after the other."""
    size = request.crop.size
    pixels = np.empty((len(request.places), size, size, 3), np.uint8)
    failed: dict[int, str] = {}
    digests: list[int] = []
    for index, place in enumerate(request.places):
        try:
            content = place.read()
            pixels[index - len(failed)] = _cropped(content, request, index)
            digests += [digest_of(content)] if request.with_digests else []
        except (ServiceError, OSError, ValueError) as error:  # ValueError: a path that no file can have
            failed[index] = error.message if isinstance(error, ServiceError) else UNREADABLE
    return Decoded(pixels[: len(pixels) - len(failed)], failed, digests)


def digest_of(content: bytes) -> int:
    """Return 64 bits that distinguish files: among ten million, two differing ones are equal once in 370,000 times."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def centre_of(content: bytes, crop: CropSpec) -> NDArray[np.uint8]:
    """Return the centre of an image, uint8 (size, size, 3), as testing and serving see it.

    Raises as `image_to_pixels` does.
    """
    size = (crop.size, crop.size)
    return image_to_pixels(
        content,
        shorter_side=crop.shorter_side,
        crop=size,
        interpolation=crop.interpolation,
        resizer=crop.resizer,
    )[0]


def _cropped(content: bytes, request: Request, index: int) -> NDArray[np.uint8]:
    crop, size = request.crop, (request.crop.size, request.crop.size)
    if crop.kind == "centre":
        return centre_of(content, crop)
    image = decode_reduced(content, crop.decoded_side())
    left, top, right, bottom = crop.box(image.info.width, image.info.height, random_of(*request.draws[index]))
    return image.resized(size, (left, top, right, bottom), crop.resizer)


def send(decoded: Decoded, replies: IO[bytes]) -> None:
    """Write a reply."""
    head: dict[str, Any] = {
        "shape": decoded.pixels.shape,
        "failed": list(decoded.failed.items()),
        "digests": decoded.digests,
    }
    replies.write(json.dumps(head).encode() + b"\n")
    replies.write(decoded.pixels.data)
    replies.flush()


def receive(replies: IO[bytes]) -> Decoded:
    """Read a reply. Raises EOFError for an incomplete one."""
    line = replies.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    pixels = np.empty(head["shape"], np.uint8)
    target = pixels.reshape(-1).data
    read = 0
    while read < len(target):
        count = replies.readinto(target[read:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        read += count
    return Decoded(pixels, {int(index): reason for index, reason in head["failed"]}, head["digests"])


def serve() -> None:
    """Answer requests until the input ends; signals to the process group are left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(BrokenPipeError):
        for line in requests:
            send(answer(Request.parsed(line)), replies)


if __name__ == "__main__":
    serve()
