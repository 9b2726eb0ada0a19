"""The seal at the end of a model file: a digest of every byte before it, so that no change goes unnoticed.

It is one more entry of the ONNX file's metadata, `content_sha256`, written out by hand as protobuf would write it: a
reader of ONNX sees metadata, and checking it needs no parser. The golden example says that a model answers right; the
seal says that it is the very file that was exported, down to the last bit of the last weight. Files that other programs
made have none, and are taken without.
"""

import hashlib

CORRUPTED = "has been cut off or changed since its export; copy it anew, or export it again"  # of a file: {path} …
_KEY = b"content_sha256"
_TAG_OF_METADATA = 0x72  # field 14 of ModelProto, length-delimited; in an entry, key is field 1 and value is field 2


def seal(content: bytes) -> bytes:
    """Return a model file with its seal. Nothing may be written to it afterwards."""
    return content + _seal_of(content)


def is_corrupted(content: bytes) -> bool:
    """Whether a model file has a seal that is not, or no longer, that of the bytes before it."""
    return _KEY in content and not has_valid_checksum(content)


def has_valid_checksum(content: bytes) -> bool:
    """Whether a model file ends in its seal, and nothing before it has changed since."""
    length = len(_seal_of(b""))
    return content[-length:] == _seal_of(content[:-length])


def _seal_of(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest().encode()
    entry = bytes((0x0A, len(_KEY))) + _KEY + bytes((0x12, len(digest))) + digest
    return bytes((_TAG_OF_METADATA, len(entry))) + entry
