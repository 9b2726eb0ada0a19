"""What a client wants to get, by its Accept headers (RFC 9110, section 12.5)."""

import re

from service.errors import NotAcceptable

_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")


def choose(accept: bytes | None, offered: tuple[str, ...]) -> str:
    """Return the media type of those offered that a client likes best; of equal ones the first.

    Raises NotAcceptable if it wants none of them.
    """
    if not accept:
        return offered[0]
    wanted = [_range(part) for part in accept.decode("latin-1").lower().split(",")]
    best = max(offered, key=lambda kind: _weight(kind, wanted))  # max takes the first of equals
    if _weight(best, wanted) <= 0:
        raise NotAcceptable(f"Accept allows none of what there is: {', '.join(offered)}.")
    return best


def weights_of(accepted: bytes) -> dict[str, float]:
    """Return what a list such as Accept-Encoding names, each with its weight; of repeated ones the last counts."""
    return dict(_range(part) for part in accepted.decode("latin-1").lower().split(",") if part.strip())


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip() for piece in part.split(";"))
    weight = next((text[2:].strip() for text in parameters if text.startswith("q=")), "1")
    return kind, float(weight) if _WEIGHT.fullmatch(weight) else 0.0


def _weight(kind: str, wanted: list[tuple[str, float]]) -> float:
    """The weight of the most precise range that fits."""
    for pattern in (kind, kind.partition("/")[0] + "/*", "*/*"):
        weights = [weight for given, weight in wanted if given == pattern]
        if weights:
            return max(weights)
    return 0.0
