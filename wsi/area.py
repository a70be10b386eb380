"""The area filter, compiled: what `resample` does, for opaque RGB, at the speed of a decoder."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


class AxisWeights(NamedTuple):
    """Weights of one axis: output i is the sum over t of weights[i, t] x source[first[i] + t].

    Weights beyond what an output pixel covers are 0.
    """

    first: NDArray[np.int64]
    """N; may lie before the source's beginning."""
    weights: NDArray[np.float32]
    """N x taps; each row sums to 1."""

    @property
    def span(self) -> tuple[int, int]:
        """First and past-the-last source px with any weight in any output pixel."""
        return int(self.first[0]), int(self.first[-1]) + self.weights.shape[1]

    def matrix(self, length: int) -> csr_array:
        """N x length, for a source of so many px."""
        count, taps = self.weights.shape
        places = (self.first[:, None] + np.arange(taps)).ravel()
        used = (places < length) & (self.weights.ravel() > 0)
        outputs = np.repeat(np.arange(count), taps)
        return csr_array(
            (self.weights.ravel()[used], (outputs[used], places[used])), shape=(count, length)
        )

    def starting_at(self, origin: int) -> AxisWeights:
        """The same weights for a source that begins at `origin`."""
        return AxisWeights(self.first - origin, self.weights)


@lru_cache(1024)
def axis_weights(count: int, start: float, scale: float) -> AxisWeights:
    """The weights of `area_weights` for a source without ends.

    Parameters
    ----------
    count
        Number of output pixels.
    start
        Source coordinate of the first output pixel's left edge, in source px.
    scale
        Source px per output px; below 1 the filter is one source pixel wide (see `area_weights`).

    >>> axis_weights(2, 0.5, 1.5).first.tolist()
    [0, 2]
    """
    width = max(scale, 1.0)
    left = start + np.arange(count) * scale + (scale - width) / 2
    # An edge within a millionth of a pixel of the next one is rounding, not area.
    first = np.floor(left + 1e-6).astype(np.int64)
    taps = ceil(float((left - first).max()) + width - 1e-6)
    offset = (left - first)[:, None] - np.arange(taps)
    overlap = np.minimum(offset + width, 1.0) - np.maximum(offset, 0.0)
    overlap[overlap < 1e-6] = 0
    return AxisWeights(first, (overlap / overlap.sum(1, keepdims=True)).astype(np.float32))


def filter_area(
    source: NDArray[np.uint8],
    rows: AxisWeights,
    columns: AxisWeights,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Apply the weights of both axes: H x W x 3 uint8 to rows x columns x 3 uint8.

    Every source pixel that has weight must be there. Sums are in float32 and rounded once, so the
    result is that of exact arithmetic to within one grey level at a tie. Releases the GIL.
    """
    if out is None:
        out = np.empty((len(rows.first), len(columns.first), 3), np.uint8)
    height, width, _ = source.shape
    for axis, length in ((rows, height), (columns, width)):
        begin, end = axis.span
        if begin < 0 or end > length:
            raise ValueError(f"weights reach from {begin} to {end} in a source of {length} px")
    # Imported here because numba takes half a second to import.
    from .area_kernel import filter_lines

    if min(height, width) < 3:
        source = np.pad(source, ((0, max(0, 3 - height)), (0, max(0, 3 - width)), (0, 0)))
    lines, values = _padded(rows, height), _padded(columns, width)
    made = out if out.flags.c_contiguous else np.empty(out.shape, np.uint8)
    filter_lines(np.ascontiguousarray(source), *lines, *values, made)
    if made is not out:
        out[:] = made
    return out


def _padded(axis: AxisWeights, length: int) -> AxisWeights:
    """At least three taps, as the kernel has them, within the source."""
    first, weights = axis
    count, taps = weights.shape
    if taps >= 3:
        return axis
    padded = np.zeros((count, 3), np.float32)
    # Where the end is near, taps of no weight come before the others rather than after.
    before = np.maximum(0, first + 3 - max(length, 3))
    padded[np.arange(count)[:, None], before[:, None] + np.arange(taps)] = weights
    return AxisWeights(first - before, padded)
