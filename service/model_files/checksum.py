"""The checksum at the end of a model file: a digest of all bytes before it.

It is an entry of the ONNX file's metadata, `content_sha256`, encoded here as protobuf would encode it. Readers of ONNX
see metadata, and the check needs no parser. The golden example shows that a model computes correctly; the checksum
shows that every byte is the exported one. Files of other programs have none and are accepted without it.
"""

import hashlib

CORRUPTED = "has been truncated or changed since its export; copy it again, or export it again"  # of a file: {path} …
_KEY = b"content_sha256"
_TAG_OF_METADATA = 0x72  # field 14 of ModelProto, length-delimited; in an entry, key is field 1 and value is field 2


def append_checksum(content: bytes) -> bytes:
    """Return a model file with its checksum. Nothing may be appended afterwards."""
    return content + _checksum_entry(content)


def is_corrupted(content: bytes) -> bool:
    """Return whether a model file has a checksum that does not match the bytes before it."""
    return _KEY in content and not has_valid_checksum(content)


def has_valid_checksum(content: bytes) -> bool:
    """Return whether a model file ends in a checksum that matches all bytes before it."""
    length = len(_checksum_entry(b""))
    return content[-length:] == _checksum_entry(content[:-length])


def _checksum_entry(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest().encode()
    entry = bytes((0x0A, len(_KEY))) + _KEY + bytes((0x12, len(digest))) + digest
    return bytes((_TAG_OF_METADATA, len(entry))) + entry
