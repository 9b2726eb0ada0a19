"""Reads from a shared library which others it links, as `readelf -d` does: 64-bit little-endian ELF is all there is."""

import struct
from collections.abc import Iterator

_DYNAMIC, _STRINGS = 6, 3  # types of sections
_NEEDED = 1  # tag of a dynamic entry
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_ENTRY = struct.Struct("<qQ")


def needed_libraries(content: bytes) -> list[str]:
    """Return the names of the libraries that this one links, in order."""
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    sections = list(_sections(content))
    dynamic = next(section for section in sections if section[1] == _DYNAMIC)
    strings = sections[dynamic[6]]
    if strings[1] != _STRINGS:
        raise ValueError("the dynamic section names no table of strings")
    names = []
    for tag, value in _ENTRY.iter_unpack(content[dynamic[4] : dynamic[4] + dynamic[5]]):
        if tag == _NEEDED:
            begin = strings[4] + value
            names.append(content[begin : content.index(b"\0", begin)].decode())
    return names


def _sections(content: bytes) -> Iterator[tuple[int, ...]]:
    """Yield name, type, flags, address, offset, size, link, …"""
    header = _HEADER.unpack_from(content)
    offset, size, count = header[6], header[11], header[12]
    for number in range(count):
        yield _SECTION.unpack_from(content, offset + number * size)
