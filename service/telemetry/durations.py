"""Seconds as milliseconds with two decimals, for answers, headers and the log.

Each answer has a dozen of them, and Python's own rounding and formatting of a float takes up to a microsecond.
"""

_HUNDREDTHS_A_SECOND = 100_000


def milliseconds(seconds: float) -> float:
    """Return a duration as a number."""
    return int(seconds * _HUNDREDTHS_A_SECOND + 0.5) / 100


def hundredths(seconds: float) -> tuple[int, int]:
    """Return a duration's whole milliseconds and the hundredths of one, as `%d.%02d` writes them."""
    return divmod(int(seconds * _HUNDREDTHS_A_SECOND + 0.5), 100)
