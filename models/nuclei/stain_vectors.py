"""How much haematoxylin and eosin a pixel holds, from its colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb_from_hed

from slidetriage.errors import ModelError

Vector = tuple[float, float, float]

_HAEMATOXYLIN: Vector
_EOSIN: Vector
_THIRD: Vector
_HAEMATOXYLIN, _EOSIN, _THIRD = ((float(r), float(g), float(b)) for r, g, b in rgb_from_hed)


@dataclass(frozen=True, slots=True)
class StainVectors:
    """Colour deconvolution (Ruifrok and Johnston 2001): optical density as a sum of three stains.

    The optical density of a channel is -log10(value / background). The default vectors are theirs,
    as scikit-image has them; a slide's own can be given, with `third` as what is neither.
    """

    haematoxylin: Vector = _HAEMATOXYLIN
    """Optical density of red, green and blue; brought to length 1."""
    eosin: Vector = _EOSIN
    third: Vector = _THIRD
    background: Vector = (255.0, 255.0, 255.0)
    """Red, green and blue of empty glass."""

    def __post_init__(self) -> None:
        vectors = np.array([self.haematoxylin, self.eosin, self.third], np.float64)
        lengths = np.linalg.norm(vectors, axis=1)
        if not (np.isfinite(vectors).all() and lengths.min() > 0):
            raise ModelError("A stain vector is not a colour: it is zero or not finite.")
        if abs(np.linalg.det(vectors / lengths[:, None])) < 1e-3:
            raise ModelError("The stain vectors lie in one plane, so stains cannot be told apart.")
        if not (np.array(self.background) > 1).all():
            raise ModelError(f"A background of {self.background} is too dark for glass.")

    def tables(self) -> NDArray[np.float32]:
        """2 x 3 x 256: what each value of red, green and blue adds to haematoxylin and to eosin.

        A value of 0 counts as 1, the darkest that has a density.
        """
        vectors = np.array([self.haematoxylin, self.eosin, self.third], np.float64)
        unmix = np.linalg.inv(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        values = np.maximum(np.arange(256), 1)
        density = -np.log10(values / np.array(self.background)[:, None])  # 3 x 256
        return np.asarray(unmix.T[:2, :, None] * density, np.float32)
