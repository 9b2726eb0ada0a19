"""A histogram as plain numbers, which can be added up over processes."""

from bisect import bisect_left


class Histogram:
    """Counts of values by bucket, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` ascend; each belongs to the bucket below it."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # the last one is for everything above
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def numbers(self) -> list[float]:
        """Return the count of each bucket, then the sum of the values."""
        return [*self._counts, self._sum]
