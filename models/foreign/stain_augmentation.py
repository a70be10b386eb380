"""Random changes of stain for training: each stain of a tile made paler or denser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.encoder import check_images

from .stain import GLASS_DENSITY

RUIFROK_HED = (
    (0.650, 0.704, 0.286),
    (0.072, 0.990, 0.105),
    (0.268, 0.570, 0.776),
)
"""Haematoxylin, eosin, diaminobenzidine: Ruifrok & Johnston 2001, table 1, for red, green, blue."""

_GLASS = int(255 * np.exp(-GLASS_DENSITY))
_DENSITIES = -np.log(np.maximum(np.arange(256, dtype=np.float32), 1) / 255)


@dataclass(frozen=True, slots=True)
class StainAugmentation:
    r"""Changes the concentrations of stains, tile by tile, as Tellez et al. 2018 do.

    With the optical densities o = -ln(i / 255) of a pixel, and concentrations c of stains M by
    least squares, a tile's c become a c + b, with one a and b for each stain:

        o' = o + ((a - 1) c + b) M,   a in [1 - scale, 1 + scale],   b in [-shift, shift]

    What the stains do not explain stays as it was. Bare glass is left alone.
    """

    stain_matrix: tuple[tuple[float, float, float], ...] = RUIFROK_HED
    """S x 3 optical densities of two or three stains, e.g. of a `MatrixNormaliser`."""
    scale: float = 0.2
    shift: float = 0.05

    def __post_init__(self) -> None:
        matrix = np.array(self.stain_matrix, np.float64)
        if matrix.shape not in ((2, 3), (3, 3)) or np.linalg.matrix_rank(matrix) < len(matrix):
            raise UsageError("The stain matrix must have two or three different rows of three.")
        if not 0 <= self.scale < 1 or not 0 <= self.shift < 10:
            raise UsageError("scale must be 0 to 1 (less), and shift 0 or more.")

    def __call__(
        self, images: NDArray[np.uint8], generator: np.random.Generator
    ) -> NDArray[np.uint8]:
        """N x H x W x 3 uint8 -> the same shape, with changes drawn from `generator`."""
        stains = len(self.stain_matrix)
        alpha = generator.uniform(1 - self.scale, 1 + self.scale, (len(images), stains))
        beta = generator.uniform(-self.shift, self.shift, (len(images), stains))
        return self.change(images, alpha, beta)

    def change(
        self,
        images: NDArray[np.uint8],
        alpha: NDArray[np.float64],
        beta: NDArray[np.float64],
        *,
        spare_glass: bool = True,
    ) -> NDArray[np.uint8]:
        """Apply given factors and shifts, each N x S, to N x H x W x 3 uint8 tiles."""
        check_images(images)
        matrix = np.array(self.stain_matrix, np.float64)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)  # S x 3
        solve = np.linalg.pinv(matrix)  # 3 x S
        found = np.empty_like(images)
        for image, a, b, out in zip(images, alpha, beta, found, strict=True):
            # One 3 x 3 matrix takes densities to concentrations, scales, and takes them back.
            turn = np.eye(3) + (solve * (a - 1)) @ matrix
            planes = np.ascontiguousarray(image.reshape(-1, 3).T)  # 3 x P, each colour in a row
            x = turn.T.astype(np.float32) @ _DENSITIES[planes]  # 3 x P
            x += (b @ matrix).astype(np.float32)[:, None]
            np.exp(np.negative(x, out=x), out=x)
            np.minimum(np.add(np.multiply(x, 255, out=x), 0.5, out=x), 255, out=x)
            changed = x.astype(np.uint8)
            if spare_glass:
                np.copyto(changed, planes, where=planes.min(axis=0) > _GLASS)
            out[:] = changed.T.reshape(image.shape)
        return found
