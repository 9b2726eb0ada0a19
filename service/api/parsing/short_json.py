"""Parsing of short JSON with a limit on its depth. The supervisor uses this module, so it must not import NumPy."""

import re
from itertools import accumulate
from typing import Any

import orjson

from service.errors import BadRequest

_MOST_DEPTH = 32
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class NotJson(ValueError):
    """The body is not valid JSON."""


def read_short_json(content: bytes) -> Any:
    """Return the parsed body. Raises NotJson, and BadRequest if it is nested too deeply."""
    if content.count(b"[") + content.count(b"{") > _MOST_DEPTH:
        brackets = _STRING.sub(b"", content).translate(None, _NOT_BRACKETS)
        if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > _MOST_DEPTH:
            raise BadRequest(
                f"The JSON is nested more than {_MOST_DEPTH} levels deep; send fewer levels.", code="bad_json"
            )
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise NotJson from None
