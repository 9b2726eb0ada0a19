"""A run-time check that a graph computes each row of a batch independently of the other rows.

It runs three random rows, of which the third has much larger values. A range, mean or maximum over the whole batch
would change the outputs of the other rows. A graph that cannot be run counts as dependent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.model_files.tensor_spec import DTYPES, TensorSpec

Array = NDArray[Any]
Run = Callable[[dict[str, Array]], Sequence[Array]]

_SEED = 14
_TOGETHER = ((0, 1), (1, 0), (2, 0, 1))
_SCALES = (1.0, 1.0, 100.0)
_INTEGERS_BELOW = (256, 10, 2)  # a graph does not declare the range of indices and labels; one of these usually fits
# Relative to the largest value of a row's output: float16 and another order of sums differ by less, other rows by more.
_TOLERANCE, _SMALLEST_DIFFERENCE = 0.01, 1e-6


def has_independent_rows(run: Run, inputs: Sequence[TensorSpec]) -> bool:
    """Return whether rows have the same outputs in batches of one and in larger batches. `run` may raise anything."""
    for rows in _random_rows(inputs):
        single = _answers(run, rows)
        if single is not None:
            return all(_equals_single(run, rows, single, order) for order in _TOGETHER)
    return False


def _answers(run: Run, feeds: Sequence[dict[str, Array]]) -> list[Sequence[Array]] | None:
    """Return the outputs of each feed, or None if a run fails."""
    try:
        return [run(feed) for feed in feeds]
    except Exception:  # ONNX Runtime has no closed list of failures, for example an index out of range
        return None


def _equals_single(
    run: Run, rows: Sequence[dict[str, Array]], single: Sequence[Sequence[Array]], order: Sequence[int]
) -> bool:
    together = _answers(run, [_stacked([rows[i] for i in order])])
    return together is not None and _are_same(together[0], [single[i] for i in order])


def _random_rows(inputs: Sequence[TensorSpec]) -> Iterator[list[dict[str, Array]]]:
    random = np.random.default_rng(_SEED)
    for below in _INTEGERS_BELOW:
        yield [{spec.name: _random_row(random, spec, scale, below) for spec in inputs} for scale in _SCALES]


def _random_row(random: np.random.Generator, spec: TensorSpec, scale: float, below: int) -> Array:
    dtype, shape = DTYPES[spec.datatype], (1, *spec.shape[1:])
    if dtype.kind != "f":
        most = 2 if dtype.kind == "b" else min(below, np.iinfo(dtype).max + 1)
        return random.integers(0, most, shape).astype(dtype)
    if below == _INTEGERS_BELOW[0]:
        return (random.standard_normal(shape) * scale).astype(dtype)
    return random.integers(0, below, shape).astype(dtype)  # a graph may declare its indices as floats


def _stacked(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _are_same(together: Sequence[Array], single: Sequence[Sequence[Array]]) -> bool:
    return all(
        len(answer) == len(single) and all(_is_same(answer[i : i + 1], single[i][output]) for i in range(len(single)))
        for output, answer in enumerate(together)
    )


def _is_same(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind == "f":
        return _is_close(found.astype(np.float64), expected.astype(np.float64))
    if (
        expected.dtype.itemsize == 1 and expected.dtype.kind != "b"
    ):  # quantized: another order of sums may round differently
        return bool((np.abs(found.astype(np.int16) - expected.astype(np.int16)) <= 1).all())
    return bool(np.array_equal(found, expected))


def _is_close(found: Array, expected: Array) -> bool:
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return np.allclose(found, expected, rtol=0, atol=_TOLERANCE * largest + _SMALLEST_DIFFERENCE, equal_nan=True)
