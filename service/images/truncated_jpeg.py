"""Truncated JPEGs: a file whose last bytes are missing is accepted if most of it is present, as in browsers.

A sequential JPEG needs 95% of its rows, a progressive one the first scan of each component. The decoder counts the rows
at an eighth of the size; it outputs a row only if all of its blocks are present. One bits are appended to the data, so
that the decoder processes the last block: they are not a valid code of any Huffman table.
"""

import struct
from collections.abc import Sequence
from itertools import chain

import numpy as np
from PIL import Image, _imaging

from service.errors import BadImage
from service.images.jpeg_segments import (
    END_OF_IMAGE,
    NEXT_MARKER,
    SOF_DECODED,
    SOS,
    Frame,
    Segment,
    components_of,
    jpeg_segments,
    read_frame,
)

_ENOUGH = 0.95  # of the rows
_ONES = b"\xff\x00" * 8  # 64 bits, which libjpeg reads ahead
_LEAST_FILLING = 512  # zeros at the end of a file are padding of a file system or an incomplete download
_SCALE = 8
# A decoded colour or grey pixel has 255 as its fourth byte in memory; no real CMYK pixel has this value.
_UNTOUCHED = (17, 254, 3, 0)
_MODES = {1: ("RGBX", "RGB"), 3: ("RGBX", "RGB"), 4: ("CMYK", "CMYK;I")}  # by components


def with_end_marker(content: bytes) -> bytes | None:
    """Return a truncated JPEG with an appended end marker if enough of it is present, else None."""
    data = content.rstrip(b"\x00")
    content = (data if len(content) - len(data) >= _LEAST_FILLING else content).rstrip(b"\xff")
    try:
        return _ended(content)
    except (BadImage, struct.error, IndexError, StopIteration):
        return None


def _ended(content: bytes) -> bytes | None:
    walk = jpeg_segments(content, 2)
    segments = []
    for segment in walk:
        segments.append(segment)
        if segment[0] == SOS:
            break
    frame_start = next(start for kind, start, _ in segments if kind in SOF_DECODED)
    frame = read_frame(content, frame_start)
    _, scan, data = segments[-1]
    if not frame.is_progressive and frame.sampling.keys() == set(components_of(content, scan)):
        marker = NEXT_MARKER.search(content, data)  # any marker ends the only scan
        content = content if marker is None else content[: marker.start()]
        is_enough = _share_of_rows(content, frame.width, frame.height, len(frame.sampling)) >= _ENOUGH
    else:
        segments.extend(walk)
        if segments[-1][2] > len(content):
            content = content[: segments.pop()[1]]
        is_enough = _has_enough(content, segments, frame, frame_start)
    return content + END_OF_IMAGE if is_enough else None


def _has_enough(content: bytes, segments: Sequence[Segment], frame: Frame, frame_start: int) -> bool:
    """Return whether a JPEG of several scans has the first scan of each component: complete, or 95% of the only one."""
    scans = [(components_of(content, start), start) for kind, start, _ in segments if kind == SOS]
    cut = scans.pop() if segments[-1][0] == SOS else (b"", 0)  # the scan within which the data ends
    missing = frame.sampling.keys() - chain.from_iterable(components for components, _ in scans)
    if frame.is_progressive or not missing or missing != set(cut[0]) or len(missing) > 1:
        return not missing
    return _share_of_one(content, frame, frame_start, cut) >= _ENOUGH


def _share_of_one(content: bytes, frame: Frame, frame_start: int, cut: tuple[bytes, int]) -> float:
    """Return the fraction of the rows that a scan of one component has, decoded as a grey JPEG."""
    component = cut[0][0]
    (across, down), densest = frame.sampling[component], frame.densest()
    width, height = -(-frame.width * across // densest[0]), -(-frame.height * down // densest[1])
    table = next(content[at + 2] for at in range(frame_start + 10, cut[1], 3) if content[at] == component)
    header = struct.pack(">HBHHBBBB", 11, 8, height, width, 1, component, 0x11, table)
    tables = b"".join(
        content[start:end]
        for kind, start, end in jpeg_segments(content, 2)
        if start < cut[1] and kind in (0xC4, 0xDB, 0xDD)
    )
    frame_header = bytes((0xFF, content[frame_start + 1])) + header
    return _share_of_rows(b"\xff\xd8" + tables + frame_header + content[cut[1] :], width, height, 1)


def _share_of_rows(content: bytes, width: int, height: int, components: int) -> float:
    mode, stored = _MODES.get(components, ("", ""))
    if not mode:
        return 0.0
    size = (-(-width // _SCALE), -(-height // _SCALE))
    rows = _imaging.fill(mode, size, _UNTOUCHED)
    decoder = _imaging.jpeg_decoder(mode, stored, "", _SCALE, 0)
    decoder.setimage(rows, (0, 0, *size))
    _, error = decoder.decode(content + _ONES)
    if error:
        return 0.0
    first_column = np.asarray(Image.Image()._new(rows).crop((0, 0, 1, size[1])))
    whole = int(np.any(first_column != _UNTOUCHED, axis=-1).sum())
    return min(1.0, whole * _SCALE / height)
