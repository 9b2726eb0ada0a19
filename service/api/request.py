"""What the endpoints for pictures share: the query, the body, one picture's way to the model."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.types import Receive

from service.api.multipart import file_in_form
from service.batcher import Batcher
from service.classifier import LARGEST_TOP_K, Classification, Classifier
from service.errors import BadRequest, NotAnImage, image_too_large
from service.exchange import Exchange
from service.metrics import Metrics
from service.registry import Registry

DEFAULT_TOP_K = 5
_MAX_PARAMETERS = 32


@dataclass(frozen=True, slots=True)
class Serving:
    """What runs pictures, and what counts them."""

    registry: Registry
    batcher: Batcher
    metrics: Metrics
    max_image_bytes: int

    async def classify(
        self,
        classifier: Classifier,
        picture: bytes,
        exchange: Exchange,
        *,
        top_k: int = DEFAULT_TOP_K,
        outputs: tuple[str, ...] = (),
    ) -> Classification:
        """Return the model's answer to one picture of a request, and count it.

        Raises BadRequest if it is empty, TooLarge, and what `Classifier.classify` raises.
        """
        self._check_size(picture)
        classification = await classifier.classify(
            picture,
            top_k=top_k,
            batcher=self.batcher,
            is_wanted=_is_wanted(exchange),
            expires_at=exchange.expires_at,
            outputs=outputs,
        )
        exchange.note_picture(classifier.info, classification)
        total_s = time.monotonic() - exchange.started_at
        self.metrics.note_classification(classifier.info, classification, total_s)
        return classification

    def _check_size(self, picture: bytes) -> None:
        if not picture:
            raise BadRequest("There is no image in the request: the file is empty.", code="no_file")
        if len(picture) > self.max_image_bytes:
            raise image_too_large(self.max_image_bytes)


def _is_wanted(exchange: Exchange) -> Callable[[], bool]:
    return lambda: not exchange.client_has_left()


def read_query(query: bytes) -> dict[str, str]:
    """Return the parameters of a query, the last one of each name. Raises BadRequest."""
    if not query:
        return {}
    try:
        return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        raise BadRequest(f"The query has more than {_MAX_PARAMETERS} parameters.", code="bad_query") from None


def read_top_k(parameters: dict[str, str]) -> int:
    """Return the parameter `top_k`. Raises BadRequest."""
    text = parameters.get("top_k")
    if text is None:
        return DEFAULT_TOP_K
    number = read_number(text)
    if number is None or not 1 <= number <= LARGEST_TOP_K:
        raise BadRequest(f"top_k must be a whole number from 1 to {LARGEST_TOP_K}.", code="bad_top_k")
    return number


def read_number(text: str) -> int | None:
    """Return the whole number that a text is, or None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def check_encoding(headers: dict[bytes, bytes]) -> None:
    """Raise NotAnImage for a body that is packed."""
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise NotAnImage("Content-Encoding is not accepted; send the body as it is.", code="unsupported_encoding")


async def read_picture(exchange: Exchange, receive: Receive) -> bytes | None:
    """Return the one picture of a body, which may be a form, or None if the client left. Raises BadRequest."""
    body = await read_body(receive)
    if body is None or not exchange.is_form:
        return body
    return file_in_form(body, exchange.headers[b"content-type"])


async def read_body(receive: Receive) -> bytes | None:
    """Return the whole body, or None if the client left before its end."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    pieces = []
    while message["type"] == "http.request":
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()
    return None
