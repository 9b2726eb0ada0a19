"""Images in JSON bodies; large bodies are parsed in a thread."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from service.api.parsing.base64_text import from_base64
from service.api.parsing.json_body import parsing_bytes, read_json
from service.api.parsing.long_values import LongText
from service.api.parsing.short_json import NotJson
from service.errors import BadRequest
from service.http.request_context import RequestContext

_SMALL_BYTES = 256 * 1024  # of JSON that is parsed on the event loop
_MOST_FIELDS = 128

Parsed = TypeVar("Parsed")


class JsonParser:
    """Parses small bodies on the event loop, and large ones in a thread, one at a time."""

    def __init__(self) -> None:
        self._parsing_large = asyncio.Semaphore(1)

    async def parse(self, body: bytes, context: RequestContext, parse: Callable[[bytes], Parsed]) -> Parsed:
        """Return the result of `parse`, and count its memory as that of the request.

        Raises Overloaded above the memory limit, and the errors of `parse`.
        """
        if len(body) <= _SMALL_BYTES:
            return parse(body)
        async with self._parsing_large:
            context.reserve(await asyncio.to_thread(parsing_bytes, body))
            return await asyncio.to_thread(parse, body)


def read_object(body: bytes, expected: str) -> dict[str, Any]:
    """Return the JSON object of a body. Raises BadRequest; its message contains `expected`."""
    try:
        document = read_json(body)
    except NotJson:
        document = None
    if not isinstance(document, dict) or len(document) > _MOST_FIELDS:
        raise BadRequest(f"The body is not the JSON object that this path expects; send {expected}.", code="bad_json")
    return document


def decoded_image(value: Any, name: str) -> bytes:
    """Return the bytes of an image that is base64 or a data URL with base64. Raises BadRequest."""
    if isinstance(value, str | LongText):
        try:
            return from_base64(value.encode() if isinstance(value, str) else value.content())
        except ValueError:
            pass
    raise BadRequest(f"`{name}` must be an image as base64, or as a data URL with base64.", code="bad_base64")
