"""How one request is told from all others: its own id, and the trace that it is part of."""

import random
import re

_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# W3C Trace Context, section 3.2: version, trace, parent, flags. Zeros alone name nothing, and there is no version ff.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def request_id(given: bytes | None) -> bytes:
    """Return the id that came with a request if it can do no harm in a log or a header, else a new one."""
    if given is not None and _HARMLESS.fullmatch(given):
        return given
    return b"%024x" % random.getrandbits(96)  # unique, no secret; a forked process has a seed of its own


def traceparent(given: bytes | None) -> bytes | None:
    """Return a valid traceparent as it came, or None."""
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None
