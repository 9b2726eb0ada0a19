"""Decode hostile images in a separate process with little memory, and print the result of each.

`python -W error -m tests.support.image_files.decode_child hostile|giants|fuzz [COUNT]` prints one JSON line for each
file. A fuzz run prints only the files that broke a promise, and a last line with counts.
"""

import faulthandler
import json
import random
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from service.errors import ServiceError
from service.images.preprocessing import image_to_pixels
from tests.support.image_files.giant_images import giants
from tests.support.image_files.hostile_images import hostile
from tests.support.image_files.images import chunk, images

FUZZ_SEED = 20_151_210
EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
SPLICES = (
    b"\xff\xda",
    b"\xff\xd9",
    b"\xff\xd8",
    b"\xff\xc0",
    b"\xff\xc2",
    b"\xff\xc4\x00\x02",
    b"\xff\xdd\x00\x04\x00\x01",
)


def outcome(data: bytes) -> dict[str, Any]:
    """Return status, message and CPU seconds of decoding one file; an exception that is not ours has status 500."""
    started = time.process_time()
    try:
        pixels, info = image_to_pixels(data, shorter_side=224, crop=(224, 224))
        assert pixels.shape == (224, 224, 3)
        assert 0 < info.width * info.height <= 208_000_000  # above 26 million: a JPEG at a reduced scale
        status, message = 200, ""
    except ServiceError as error:
        status, message = error.status, error.message
    except BaseException as error:
        status, message = 500, repr(error)
    return {"status": status, "message": message, "cpu_s": time.process_time() - started, "bytes": len(data)}


def mutated(seeds: list[bytes], case: int) -> bytes:
    """Return a damaged image; the same one for the same case."""
    dice = random.Random(FUZZ_SEED + case)
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        dice.choice(MUTATORS)(data, dice, seeds)
    repaired = data.startswith(b"\x89PNG") and dice.random() < 0.7
    return with_right_checksums(bytes(data)) if repaired else bytes(data)


def _flip_bits(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    for _ in range(dice.choice((1, 1, 2, 8, 40))):
        if data:
            data[_place(data, dice)] ^= 1 << dice.randrange(8)


def _cut_off(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    del data[dice.randint(0, len(data)) :]


def _delete_a_block(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    start = _place(data, dice)
    del data[start : start + dice.randint(1, 200)]


def _repeat_a_block(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    start = _place(data, dice)
    data[start:start] = data[start : start + dice.randint(1, 200)] * dice.choice((1, 2, 30))


def _write_an_edge(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    size, order, start = dice.choice((1, 2, 4)), dice.choice("<>"), _place(data, dice)
    value = dice.choice(EDGES) & (1 << 8 * size) - 1
    data[start : start + size] = struct.pack(order + {1: "B", 2: "H", 4: "I"}[size], value)


def _splice_a_marker(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    start = _place(data, dice)
    data[start:start] = dice.choice(SPLICES)


def _cross(data: bytearray, dice: random.Random, seeds: list[bytes]) -> None:
    other = dice.choice(seeds)
    start = dice.randint(0, len(other))
    place = _place(data, dice)
    data[place : place + dice.randint(0, 400)] = other[start : start + dice.randint(1, 400)]


def _place(data: bytearray, dice: random.Random) -> int:
    """Often within the header, where most is at stake."""
    return dice.randrange(max(1, min(len(data), dice.choice((64, 700, 1 << 30)))))


MUTATORS: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    _flip_bits,
    _cut_off,
    _delete_a_block,
    _repeat_a_block,
    _write_an_edge,
    _splice_a_marker,
    _cross,
)


def with_right_checksums(png: bytes) -> bytes:
    """Otherwise hardly any damage would get past the checksums."""
    parts, position = [png[:8]], 8
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        body = png[position + 8 : position + 8 + length]
        parts.append(chunk(kind, body) if len(body) == length else png[position:])
        position += 12 + length
    return b"".join(parts)


def _limit_memory(mebibytes: int) -> None:
    """Allow so much more than the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mebibytes * (1 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _named(files: dict[str, Callable[[], bytes]]) -> Iterator[dict[str, Any]]:
    for name, make in files.items():
        yield {"name": name, **outcome(make())}


def _fuzz(count: int) -> Iterator[dict[str, Any]]:
    seeds = [image.data for image in images().values()]
    statuses: dict[int, int] = {}
    slowest = 0.0
    for case in range(count):
        result = outcome(mutated(seeds, case))
        statuses[result["status"]] = statuses.get(result["status"], 0) + 1
        slowest = max(slowest, result["cpu_s"])
        if result["status"] not in (200, 415, 422) or result["cpu_s"] > 1:
            yield {"name": f"case {case}", **result}
    yield {"name": "all", "statuses": statuses, "cpu_s": slowest, "count": count}


def main(kind: str, count: str = "0") -> None:
    faulthandler.enable()
    outcome(images()["webp_alpha"].data)  # whatever is loaded once
    hostile_makers = {name: make for name, (make, _) in hostile().items()}
    runs = {"hostile": _named(hostile_makers), "giants": _named(giants()), "fuzz": _fuzz(int(count))}
    _limit_memory({"hostile": 600, "giants": 700, "fuzz": 400}[kind])
    for result in runs[kind]:
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
