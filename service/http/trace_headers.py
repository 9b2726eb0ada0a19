"""Identification of a request: its id, and its trace (W3C Trace Context)."""

import random
import re

_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# W3C Trace Context, section 3.2: version, trace, parent, flags. Ids of zeros and the version ff are invalid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def request_id(given: bytes | None) -> bytes:
    """Return the client's request id if it is safe in logs and headers, else a new one."""
    if given is not None and _HARMLESS.fullmatch(given):
        return given
    return b"%024x" % random.getrandbits(96)  # unique, but not secret; a forked process has its own seed


def traceparent(given: bytes | None) -> bytes | None:
    """Return a valid traceparent header unchanged, or None."""
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None
