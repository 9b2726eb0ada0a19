"""Seconds as milliseconds with two decimals, for responses, headers and the log.

Each response has a dozen of them, and Python's own rounding and formatting of a float takes up to a microsecond.
"""

_HUNDREDTHS_A_SECOND = 100_000


def milliseconds(seconds: float) -> float:
    """Return a duration as a number."""
    return int(seconds * _HUNDREDTHS_A_SECOND + 0.5) / 100


def hundredths(seconds: float) -> tuple[int, int]:
    """Return whole milliseconds and hundredths of a millisecond, for the format `%d.%02d`."""
    return divmod(int(seconds * _HUNDREDTHS_A_SECOND + 0.5), 100)
