"""The slope of a straight line through measured points, with its 95% interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t for two-sided 95%, by degrees of freedom; beyond, the expansion about the normal distribution is exact
# to three digits.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, slots=True)
class Slope:
    """A change of y for each unit of x, with the limits of its 95% interval."""

    value: float
    low: float
    high: float


def slope_of(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Return the slope of y over x by least squares. Raises ValueError for fewer than three points.

    The interval holds for independent errors of one variance; a drift that comes in steps makes it too narrow.
    """
    if len(x) < 3:
        raise ValueError(f"a slope with an interval needs three points, not {len(x)}")
    fit = statistics.linear_regression(x, y)
    mean = statistics.fmean(x)
    spread = math.fsum((each - mean) ** 2 for each in x)
    residuals = math.fsum((b - fit.intercept - fit.slope * a) ** 2 for a, b in zip(x, y, strict=True))
    half = student_t(len(x) - 2) * math.sqrt(residuals / (len(x) - 2) / spread)
    return Slope(fit.slope, fit.slope - half, fit.slope + half)


def student_t(freedom: int) -> float:
    """Return the quantile 0.975 of Student's distribution."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return z + (z**3 + z) / (4 * freedom) + second + third
