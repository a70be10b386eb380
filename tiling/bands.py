"""An image worked through in bands of rows, so that memory for what is worked out stays small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND_PX = 1 << 17
"""Pixels of a band, without its halo; a row at least."""


class Band(NamedTuple):
    """Some rows of an image."""

    rows: slice
    wide: slice
    """The same rows with the halo above and below, as far as the image goes."""
    core: slice
    """`rows` within `wide`."""


def cut_bands(shape: tuple[int, ...], *, halo: int = 0) -> Iterator[Band]:
    """All rows of an image of `shape` from top to bottom, with `halo` rows around each band.

    >>> [(band.rows.start, band.rows.stop) for band in cut_bands((600, 1 << 9))]
    [(0, 256), (256, 512), (512, 600)]
    """
    height, width = shape[:2]
    step = max(1, BAND_PX // max(1, width))
    for start in range(0, height, step):
        stop = min(height, start + step)
        top, bottom = max(0, start - halo), min(height, stop + halo)
        yield Band(slice(start, stop), slice(top, bottom), slice(start - top, stop - top))


def resize(image: NDArray[Any], columns: int, rows: int, method: Image.Resampling) -> NDArray[Any]:
    """What Pillow makes of the image at `columns` x `rows`, to the byte.

    Pillow filters along x and then along y; here it does the one in bands of rows and the other in
    bands of columns, because it would hold the image three times over.
    """
    tall = np.empty((image.shape[0], columns, *image.shape[2:]), image.dtype)
    for band in cut_bands(image.shape):
        part = Image.fromarray(image[band.rows])
        tall[band.rows] = part.resize((columns, part.height), method)
    if rows == len(tall):
        return tall
    out = np.empty((rows, *tall.shape[1:]), image.dtype)
    for band in cut_bands((columns, max(rows, len(tall)))):
        part = Image.fromarray(np.ascontiguousarray(tall[:, band.rows]))
        out[:, band.rows] = part.resize((part.width, rows), method)
    return out


def count_labels(
    labels: NDArray[np.int32], count: int, where: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """How many pixels have each label from 0 to `count`, of those in `where`."""
    total = np.zeros(count + 1, np.int64)
    for band in cut_bands(labels.shape):
        part = labels[band.rows]
        chosen = part.ravel() if where is None else part[where[band.rows]]
        total += np.bincount(chosen, minlength=count + 1)
    return total


def choose_labels(labels: NDArray[np.int32], keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where the label is one to keep."""
    chosen = np.empty(labels.shape, np.bool_)
    for band in cut_bands(labels.shape):
        chosen[band.rows] = keep[labels[band.rows]]
    return chosen
