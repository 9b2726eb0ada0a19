"""The time of preprocessing an image, beside plain Pillow.

`python -m benchmarks.preprocess [PHOTO…]`: the header walk in microseconds, decoding to 224 pixels in
milliseconds, for the given photos (or a made one of 500 x 375) and for made ones of 12 and 24 megapixels. The last line
is of all photos, by each resizer: medians of alternating rounds. All is CPU time; of a single photo the best of several
rounds, so that other work on the machine shows least.
"""

import functools
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from service.images.header import read_header
from service.images.preprocessing import image_to_pixels, installed_resizers


def best_seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU time of the shortest of several runs."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def plain_pillow(data: bytes) -> np.ndarray:
    """Decode, turn, resize to 256 and crop 224, as a reader of Pillow's manual would."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.array(image.crop((left, top, left + 224, top + 224)))


def made_photo(width: int, height: int, seed: int = 1) -> bytes:
    """Return a JPEG with the detail and the size in bytes of a photo."""
    dice = np.random.default_rng(seed)
    small = Image.fromarray(dice.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8))
    values = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grained = np.clip(values + dice.normal(0, 8, values.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grained).save(file, "JPEG", quality=88)
    return file.getvalue()


def report(name: str, data: bytes, rounds: int) -> None:
    walk = best_seconds(lambda: read_header(data), rounds * 10)
    ours = best_seconds(lambda: image_to_pixels(data, shorter_side=256, crop=(224, 224)), rounds)
    plain = best_seconds(lambda: plain_pillow(data), rounds)
    sys.stdout.write(
        f"{name:<34} {len(data) / 1000:>7.0f} kB   header {walk * 1e6:>6.1f} us   "
        f"pixels {ours * 1e3:>7.2f} ms   plain Pillow {plain * 1e3:>7.2f} ms\n"
    )


def report_resizers(photos: list[bytes], rounds: int) -> None:
    """Write the CPU time of a photo by every resizer and by plain Pillow, and how many times plain Pillow that is."""
    ways: dict[str, Callable[[bytes], object]] = {
        resizer: functools.partial(image_to_pixels, shorter_side=256, crop=(224, 224), resizer=resizer)
        for resizer in installed_resizers()
    } | {"plain Pillow": plain_pillow}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            for photo in photos:
                way(photo)
            times[name].append((time.process_time() - started) / len(photos))
    for name, taken in times.items():
        ratio = statistics.median(plain / own for plain, own in zip(times["plain Pillow"], taken, strict=True))
        sys.stdout.write(f"{name:<34} {statistics.median(taken) * 1e3:>7.2f} ms a photo, {ratio:.2f} times as fast\n")


def main() -> None:
    photos = [(Path(path).name, Path(path).read_bytes()) for path in sys.argv[1:]]
    for name, data in photos or [("500 x 375, made", made_photo(500, 375))]:
        report(name, data, rounds=30)
    report("4000 x 3000, made", made_photo(4000, 3000), rounds=5)
    report("6000 x 4000, made", made_photo(6000, 4000), rounds=3)
    report_resizers([data for _, data in photos] or [made_photo(500, 375)] * 10, rounds=15)


if __name__ == "__main__":
    main()
