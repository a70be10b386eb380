"""Finding the tissue on a thumbnail by a masker's name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError

from .maskers import check_masker
from .tiles import TissueMask


def find_tissue(
    rgb: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    mpp: tuple[float, float],
    *,
    masker: str = "slidetriage",
) -> TissueMask:
    """Find the tissue on a thumbnail.

    Parameters
    ----------
    rgb
        H x W x 3, uint8 sRGB.
    valid
        H x W, bool; False where nothing was scanned. Such pixels are never tissue.
    mpp
        Micrometres per thumbnail pixel along x and y; 4 to 16 is what the maskers are made for.
    masker
        "slidetriage", "otsu" or "morphological".

    Raises
    ------
    UsageError
        The masker is not known, or an array or scale is not of the kind stated above.
    """
    mask = check_masker(masker)
    _check(rgb, valid, mpp)
    if not valid.any():
        return TissueMask(np.zeros(valid.shape, np.bool_), mpp[0], mpp[1], masker)
    return TissueMask(mask(rgb, valid, mpp), mpp[0], mpp[1], masker)


def _check(rgb: NDArray[np.uint8], valid: NDArray[np.bool_], mpp: tuple[float, float]) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise UsageError(
            f"The thumbnail is {rgb.dtype} of shape {rgb.shape}.",
            mend="Pass RGB as uint8 of shape (rows, columns, 3).",
        )
    if rgb.size == 0:
        raise UsageError(
            f"The thumbnail is empty: its shape is {rgb.shape}.", mend="Read at least one pixel."
        )
    if valid.shape != rgb.shape[:2] or valid.dtype != np.bool_:
        raise UsageError(
            f"The validity is {valid.dtype} of shape {valid.shape}, "
            f"the thumbnail has shape {rgb.shape}.",
            mend="Pass validity as bool of shape (rows, columns).",
        )
    if not all(np.isfinite(m) and m > 0 for m in mpp):
        raise UsageError(
            f"The thumbnail's scale is {mpp} um/px.", mend="Pass two positive numbers (x, y)."
        )
