"""The segments of a JPEG file: their positions, and the work to decode the file's frame and scans.

Files that libjpeg would parse differently are refused, so that no scan can evade the limits. The walk has a limit on
its steps; it skips scan data at about 2 ns a byte.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.errors import BadImage

MAX_PARTS = 10_000  # chunks or segments; a 20 MiB PNG in libpng's usual 8 KiB chunks has 2,560

EOI, SOS = 0xD9, 0xDA
END_OF_IMAGE = bytes((0xFF, EOI))
SOF_DECODED = frozenset((0xC0, 0xC1, 0xC2))  # Huffman-coded: baseline, extended, progressive
SOF_PROGRESSIVE = 0xC2
# APPn and comments do not affect the pixels, except JFIF (E0) and Adobe's colour transform (EE).
_APPLICATION_OR_COMMENT = frozenset((*range(0xE0, 0xF0), 0xFE))
KEPT = SOF_DECODED | {0xC4, 0xDB, 0xDC, 0xDD, 0xE0, 0xEE}  # with the tables: DHT, DQT, DNL, DRI

# A marker is 0xFF and a byte other than stuffing (00), a restart (D0-D7) and filling (FF).
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_TEM = 0x01
_SEGMENT_HEADER_BYTES = 4  # marker and length
_COEFFICIENT_BYTES = 2
_UNSUPPORTED = {
    **dict.fromkeys((0xC9, 0xCA, 0xCC), "arithmetic-coded"),
    **dict.fromkeys((0xC3, 0xCB, 0xF7), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE, 0xDF), "hierarchical"),
}

Segment = tuple[int, int, int]  # marker, start and end


def jpeg_segments(data: bytes, position: int) -> Iterator[Segment]:
    """Yield each segment from `position` on without scan data; the last one is the end marker, if present.

    A truncated segment ends beyond the data. Raises BadImage.
    """
    for _ in range(MAX_PARTS):
        marker = NEXT_MARKER.search(data, position)
        if marker is None:
            return
        start, kind = marker.start(), data[marker.end() - 1]
        if kind == EOI:
            yield kind, start, start + 2
            return
        if kind == _TEM:
            position = start + 2
            continue
        if kind != SOS and kind not in KEPT and kind not in _APPLICATION_OR_COMMENT:
            raise _unsupported(kind)
        if start + _SEGMENT_HEADER_BYTES > len(data):
            yield kind, start, start + _SEGMENT_HEADER_BYTES
            return
        (length,) = struct.unpack_from(">H", data, start + 2)
        if length < 2:
            raise BadImage("The JPEG file is broken: it has a segment with an invalid length.")
        position = start + 2 + length
        yield kind, start, position
    raise BadImage(f"The JPEG file has more than {MAX_PARTS:,} segments.")


def _unsupported(marker: int) -> BadImage:
    what = _UNSUPPORTED.get(marker)
    if what is None:
        return BadImage("The JPEG file is broken, or uses an unsupported coding.")
    return BadImage(
        f"This is {'an' if what[0] == 'a' else 'a'} {what} JPEG file, which is not supported: "
        "save it again as a baseline JPEG, for example with `magick in.jpg -quality 95 out.jpg`."
    )


@dataclass(slots=True)
class Frame:
    """A frame header: size in pixels, and the sampling factors (horizontal, vertical) by component id."""

    is_progressive: bool
    width: int
    height: int
    sampling: dict[int, tuple[int, int]]

    def densest(self) -> tuple[int, int]:
        """Return the largest horizontal and the largest vertical sampling factor."""
        return max(across for across, _ in self.sampling.values()), max(down for _, down in self.sampling.values())

    def work(self, scans: Sequence[bytes]) -> tuple[int, int]:
        """Return the memory of all coefficients in bytes, and the sum of the pixels of all scans.

        The pixels of a scan are the samples of its component with the highest sampling.
        """
        across, down = self.densest()
        shares = {part: own[0] * own[1] / (across * down) for part, own in self.sampling.items()}
        passes = sum(max((shares.get(part, 1.0) for part in scan), default=1.0) for scan in scans)
        pixels = self.width * self.height
        return int(_COEFFICIENT_BYTES * pixels * sum(shares.values())), int(pixels * passes)


def read_frame(data: bytes, start: int) -> Frame:
    """Return the frame header at `start`. Raises struct.error, BadImage."""
    height, width, count = struct.unpack_from(">HHB", data, start + 5)
    parts = [struct.unpack_from(">BB", data, start + 10 + 3 * number) for number in range(count)]
    if not parts or not all(sampling >> 4 and sampling & 15 for _, sampling in parts):
        raise BadImage("The JPEG file is broken: it has a frame without samples.")
    sampling = {part: (sampling >> 4, sampling & 15) for part, sampling in parts}
    return Frame(data[start + 1] == SOF_PROGRESSIVE, width, height, sampling)


def components_of(data: bytes, scan: int) -> bytes:
    """Return the component ids of the scan header at offset `scan`; fewer if it is truncated."""
    count = data[scan + 4] if scan + 4 < len(data) else 0
    return data[scan + 5 : scan + 5 + 2 * count : 2]
