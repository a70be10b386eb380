"""What haematoxylin and eosin do to each part of the phantom's tissue, as optical density."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .phantom_fields import Field, Floats, ramp
from .phantom_scene import PhantomScene
from .phantom_texture import FAT_SPREAD_UM

HAEMATOXYLIN = np.array([0.64, 0.68, 0.36], np.float32)
"""Optical density of red, green and blue: what the method of Macenko et al. (ISBI 2009) finds in
public-domain breast sections ("Breast Histopathology Images"), made a little bluer as in nuclei."""

EOSIN = np.array([0.13, 0.83, 0.54], np.float32)
"""The same for eosin."""

Amounts = tuple[Floats, Floats, Floats]
"""Eosin, haematoxylin, and the share of the pixel that is tissue at all."""

_INK = np.array([0.86, 0.50, 0.16], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Stained:
    """Amounts of stain in the pixels of a block."""

    haematoxylin: Floats
    eosin: Floats
    nuclei: Floats
    """Rows x columns x 2: share of the pixel that is nucleus, and its haematoxylin."""
    solid: Floats
    """Share of the pixel that is tissue at all."""

    def density(self) -> Floats:
        """Rows x columns x 3: optical density of red, green and blue."""
        cover, dark = self.nuclei[..., 0], self.nuclei[..., 1]
        blue = self.haematoxylin * self.solid * (1 - cover) + dark
        pink = self.eosin * self.solid * (1 - 0.72 * cover) + 0.06 * cover
        stains = np.stack([HAEMATOXYLIN, EOSIN], 1)
        return np.asarray(cv2.transform(cv2.merge([blue, pink]), stains), np.float32)


def stain_tissue(
    scene: PhantomScene, fields: Floats, x_um: Floats, y_um: Floats, glands: Floats | None
) -> Stained:
    """Stain everything but the nuclei; `fields` and `glands` are given at each pixel."""
    x, y = np.meshgrid(x_um, y_um)
    fine, coarse = np.moveaxis(scene.textures.grain.look_up(x, y), -1, 0)
    collagen = _collagen(scene, fields)
    edge = fields[Field.TISSUE] + 4 * collagen.bundle + 2 * collagen.fibre + 3 * coarse
    amounts = _stain_stroma(fields, collagen, fine, coarse)
    amounts = _add_lobule(fields[Field.LOBULE], amounts)
    if fields[Field.FAT].max() > -90:
        amounts = _add_fat(scene, fields[Field.FAT], x, y, amounts)
    if fields[Field.TUMOUR].max() > 0:
        cell = scene.textures.fat.look_up(x * np.float32(5.2), y * np.float32(5.2))
        amounts = _add_nests(fields, fine, coarse, cell, amounts)
    if glands is not None:
        amounts = _add_glands(glands, fine, coarse, amounts)
    pink, blue, solid = amounts
    nuclei = np.zeros((*solid.shape, 2), np.float32)
    return Stained(blue, pink, nuclei, solid * ramp(edge, -1.5, 2.5))


def ink(scene: PhantomScene, depth: Floats, x_um: Floats, y_um: Floats) -> NDArray[np.float32]:
    """Rows x columns x 3: optical density of the pen's line, given the distance to its border."""
    x, y = np.meshgrid(x_um, y_um)
    streak = scene.textures.fibres.look_up(0.25 * x + 0.25 * y, 0.12 * y - 0.12 * x)[..., 1]
    amount = ramp(depth, -4, 9) * (0.85 + 0.12 * streak + 0.25 * ramp(-depth, -30, -5))
    return np.asarray(np.clip(amount, 0, 2)[..., None] * _INK, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Collagen:
    """Three scales of collagen, each of mean 0 and sd 1."""

    fibre: Floats
    strand: Floats
    bundle: Floats


def _collagen(scene: PhantomScene, fields: Floats) -> _Collagen:
    along, across, table = fields[Field.ALONG], fields[Field.ACROSS], scene.textures.fibres
    fibre, bundle = np.moveaxis(table.look_up(along, across), -1, 0)
    # The bundles of the same table at 4/7 of their size.
    finer = np.float32(1.75)
    return _Collagen(fibre, table.look_up(along * finer, across * finer)[..., 1], bundle)


def _stain_stroma(fields: Floats, collagen: _Collagen, fine: Floats, coarse: Floats) -> Amounts:
    """Pink collagen; where it is loose, bundles part and the glass shows between them."""
    fibre, strand, bundle = collagen.fibre, collagen.strand, collagen.bundle
    loose, within = fields[Field.LOOSE], fields[Field.TUMOUR]
    in_tumour = ramp(within, -60, 60) if within.max() > -60 else np.float32(0)
    texture = 0.10 * fibre + 0.12 * bundle + 0.11 * strand + 0.08 * (fine + coarse)
    pink = np.maximum((0.31 + 0.045 * fields[Field.TONE]) * (1 + texture), 0.05)
    blue = 0.035 + 0.012 * coarse + in_tumour * (0.055 + 0.02 * loose)
    gap = bundle + 0.4 * fibre + 0.35 * coarse - 2.0 + 0.7 * loose - 0.3 * in_tumour
    crack = strand + 0.4 * coarse + 0.3 * bundle - 1.55 + 0.55 * loose - 0.2 * in_tumour
    solid = (1 - ramp(gap, -0.12, 0.35)) * (1 - 0.9 * ramp(crack, -0.1, 0.6))
    return pink * (1 - 0.22 * in_tumour), blue, solid


def _add_lobule(depth: Floats, under: Amounts) -> Amounts:
    """The stroma within a lobule is pale and bluish."""
    if depth.max() < -10:
        return under
    pink, blue, solid = under
    share = ramp(depth, -10, 18)
    return pink * (1 - 0.35 * share), blue + 0.05 * share, solid + (1 - solid) * share


def _add_fat(scene: PhantomScene, local: Floats, x: Floats, y: Floats, under: Amounts) -> Amounts:
    """Empty vacuoles between thin septa: a fat cell is there as a whole or not at all.

    `local` is the field FAT at each pixel.
    """
    pink, blue, solid = under
    wall, to_x, to_y, rank = np.moveaxis(scene.textures.fat.look_up(x, y), -1, 0)
    fat = scene.grid.around(scene.fields[Field.FAT], x + to_x, y + to_y)
    fat += FAT_SPREAD_UM * (rank - 0.5)
    # Corners are round: where three cells meet, the septum is thick.
    inside = np.minimum(wall - 0.2 - 0.6 * rank, 39 + 18 * rank - np.hypot(to_x, to_y))
    shrunk = np.clip(9 - 0.25 * fat, 0, 9)
    empty = ramp(inside - shrunk, -0.7, 0.8) * (fat > 0)
    septum = ramp(local, -60, -20)
    solid = np.maximum(solid, septum) * (1 - empty)
    return pink, blue + 0.06 * septum, solid


def _add_nests(
    fields: Floats, fine: Floats, coarse: Floats, cell: Floats, under: Amounts
) -> Amounts:
    """Cytoplasm of the carcinoma: greyish purple, in nests that shrank from the stroma."""
    pink, blue, solid = under
    depth = fields[Field.NEST] + 1.6 * coarse + 0.3 * fine
    # The table of fat cells, a fifth of its size, serves as cells of 13 um with their borders.
    border, rank = 1 - ramp(cell[..., 0], 0.5, 6.0), cell[..., 3] - 0.5
    body = 1 + 0.13 * coarse + 0.07 * fine + 0.35 * rank
    share = ramp(depth, -1.5, 2.0)
    pink = pink * (1 - share) + share * (0.205 * body + 0.05 * border)
    blue = blue * (1 - share) + share * (0.145 * body)
    solid = solid + (1 - solid) * share
    cleft = ramp(depth, -5.5, -3.0) * (1 - ramp(depth, -2.5, -0.5)) * ramp(coarse, 0.4, 1.2)
    return pink, blue, solid * (1 - 0.9 * cleft * (fields[Field.TUMOUR] > 5))


def _add_glands(glands: Floats, fine: Floats, coarse: Floats, under: Amounts) -> Amounts:
    """Epithelium around a lumen that is empty or holds pink secretion."""
    pink, blue, solid = under
    wall, lumen, secretion = np.moveaxis(glands, -1, 0)
    pink = pink * (1 - wall) + wall * (0.24 + 0.03 * fine + 0.03 * coarse)
    blue = blue * (1 - wall) + wall * (0.16 + 0.02 * fine)
    pink = pink * (1 - lumen) + lumen * secretion * (1 + 0.10 * fine + 0.15 * coarse)
    blue = blue * (1 - lumen)
    full = np.clip(wall + lumen, 0, 1)
    return pink, blue, solid * (1 - full) + wall + lumen * (secretion > 0.02)
