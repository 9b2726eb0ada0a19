"""Content negotiation by Accept headers (RFC 9110, section 12.5)."""

import re

from service.errors import NotAcceptable

_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")


def choose(accept: bytes | None, offered: tuple[str, ...]) -> str:
    """Return the offered media type that the client prefers; of equal ones the first.

    Raises NotAcceptable if the client accepts none of them.
    """
    if not accept:
        return offered[0]
    accepted = [_range(part) for part in accept.decode("latin-1").lower().split(",")]
    best = max(offered, key=lambda kind: _weight(kind, accepted))  # max returns the first of equals
    if _weight(best, accepted) <= 0:
        raise NotAcceptable(f"The Accept header allows no available media type; available: {', '.join(offered)}.")
    return best


def weights_of(accepted: bytes) -> dict[str, float]:
    """Return the weight of each item of a list such as Accept-Encoding; of repeated items the last one counts."""
    return dict(_range(part) for part in accepted.decode("latin-1").lower().split(",") if part.strip())


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip() for piece in part.split(";"))
    weight = next((text[2:].strip() for text in parameters if text.startswith("q=")), "1")
    return kind, float(weight) if _WEIGHT.fullmatch(weight) else 0.0


def _weight(kind: str, accepted: list[tuple[str, float]]) -> float:
    """Return the weight of the most specific range that matches."""
    for pattern in (kind, kind.partition("/")[0] + "/*", "*/*"):
        weights = [weight for given, weight in accepted if given == pattern]
        if weights:
            return max(weights)
    return 0.0
