"""Paints any rectangle of a phantom scene at any scale, the same however it is cut into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

from .phantom_fields import Field, Floats, ramp
from .phantom_scene import PhantomScene
from .phantom_stains import Stained, ink, stain_tissue

BLOCK_PX = 256
"""Blocks are painted whole, aligned to the slide's corner: so a pixel never depends on the cut."""

FINEST_UM = 0.5
"""Coarser pixels are averaged from painted ones of at most this size."""

BLUR_UM = 4.5
"""Standard deviation of the out-of-focus patch's blur."""

_MARGIN_UM = 14.0
"""A nucleus reaches at most this far from its centre."""


def render(
    scene: PhantomScene, box_um: tuple[float, float, float, float], mpp: float
) -> NDArray[np.uint8]:
    """Height x width x 3, sRGB: the box (x, y, width, height in um) at `mpp`.

    The box is moved to the nearest whole pixel of the grid that starts at the slide's corner.
    A pixel coarser than 0.5 um is the mean of finer painted ones.
    """
    x, y, width, height = (round(side / mpp) for side in box_um)
    finer = max(1, ceil(mpp / FINEST_UM - 1e-9))
    if finer == 1:
        return render_pixels(scene, (x, y, width, height), mpp)
    image = np.empty((height, width, 3), np.uint8)
    rows = max(1, BLOCK_PX // finer)
    for top in range(0, height, rows):
        deep = min(rows, height - top)
        part = (x * finer, (y + top) * finer, width * finer, deep * finer)
        fine = render_pixels(scene, part, mpp / finer)
        image[top : top + deep] = cv2.resize(fine, (width, deep), interpolation=cv2.INTER_AREA)
    return image


def render_pixels(
    scene: PhantomScene, box_px: tuple[int, int, int, int], mpp: float
) -> NDArray[np.uint8]:
    """Height x width x 3, sRGB: the box (x, y, width, height) of the pixel grid of `mpp`."""
    x, y, width, height = box_px
    image = np.empty((height, width, 3), np.uint8)
    for row in range(floor(y / BLOCK_PX), ceil((y + height) / BLOCK_PX)):
        for column in range(floor(x / BLOCK_PX), ceil((x + width) / BLOCK_PX)):
            block = _paint_block(scene, column, row, mpp)
            left, top = column * BLOCK_PX - x, row * BLOCK_PX - y
            here = slice(max(top, 0), top + BLOCK_PX), slice(max(left, 0), left + BLOCK_PX)
            part = image[here]
            part[:] = block[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]]
    return image


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """The pixels of a block with a margin around it."""

    x_um: Floats
    y_um: Floats
    mpp: float

    @classmethod
    def of_block(cls, column: int, row: int, mpp: float, margin: int) -> _View:
        steps = np.arange(-margin, BLOCK_PX + margin) + 0.5
        x, y = ((steps + place * BLOCK_PX) * mpp for place in (column, row))
        return cls(x.astype(np.float32), y.astype(np.float32), mpp)


def _paint_block(scene: PhantomScene, column: int, row: int, mpp: float) -> NDArray[np.uint8]:
    view = _View.of_block(column, row, mpp, 0)
    nearest = scene.grid.range_over(scene.fields[Field.BLUR], view.x_um, view.y_um)[1]
    light = _transmit(scene, view)
    if nearest > -60:
        margin = ceil(3 * BLUR_UM / mpp)
        soft = _transmit(scene, _View.of_block(column, row, mpp, margin))
        inner = slice(margin, margin + BLOCK_PX)
        soft = np.asarray(cv2.GaussianBlur(soft, (0, 0), BLUR_UM / mpp)[inner, inner], np.float32)
        depth = scene.grid.on_pixels(scene.fields[[Field.BLUR]], view.x_um, view.y_um)[0]
        light += (soft - light) * ramp(depth, -25, 25)[..., None]
    return np.asarray(np.clip(np.rint(light), 0, 255), np.uint8)


def _transmit(scene: PhantomScene, view: _View) -> Floats:
    """Rows x columns x 3: the light that comes through, 0 to 255."""
    x, y = view.x_um, view.y_um
    reach = scene.grid.range_over(scene.fields[Field.TISSUE], x, y)[1]
    if reach < -60:
        density = np.zeros((len(y), len(x), 3), np.float32)
    else:
        fields = scene.grid.on_pixels(scene.fields, x, y)
        glands = _draw_glands(scene, view)
        stained = stain_tissue(scene, fields, x, y, glands)
        _draw_nuclei(scene, view, stained)
        density = stained.density()
    if scene.grid.range_over(scene.fields[Field.PEN], x, y)[1] > -60:
        pen = scene.grid.on_pixels(scene.fields[[Field.PEN]], x, y)[0]
        density += ink(scene, pen, x, y)
    glass = np.array([243.0, 241.0, 243.0], np.float32)
    return np.asarray(glass * cv2.exp(density * np.float32(-np.log(10))), np.float32)


def _draw_glands(scene: PhantomScene, view: _View) -> Floats | None:
    """Rows x columns x 3: share of wall, of lumen, and its secretion; None where no gland is."""
    x, y, mpp = view.x_um, view.y_um, view.mpp
    near = scene.glands_near((x[0] - 4, x[-1] + 4), (y[0] - 4, y[-1] + 4))
    if not near:
        return None
    layers = np.zeros((len(y), len(x), 3), np.uint8)
    for gland in near:
        corner = np.array([x[0], y[0]], np.float64)
        wall, lumen = (
            np.rint((ring - corner) / mpp * 64).astype(np.int32)
            for ring in (gland.wall_um, gland.lumen_um)
        )
        if gland.epithelial:
            cv2.fillPoly(layers, [wall], (255, 0, 0), cv2.LINE_AA, shift=6)
        secretion = round(255 * gland.secretion)
        cv2.fillPoly(layers, [lumen], (0, 255, secretion), cv2.LINE_AA, shift=6)
    soft = cv2.GaussianBlur(layers, (0, 0), max(0.3, 0.45 / mpp))
    return soft.astype(np.float32) * np.float32(1 / 255)


def _draw_nuclei(scene: PhantomScene, view: _View, stained: Stained) -> None:
    x, y, mpp = view.x_um, view.y_um, view.mpp
    nuclei = scene.nuclei.near(
        (float(x[0]) - _MARGIN_UM, float(x[-1]) + _MARGIN_UM),
        (float(y[0]) - _MARGIN_UM, float(y[-1]) + _MARGIN_UM),
    )
    if not len(nuclei):
        return
    stamps, radius = scene.stamps_for(mpp)
    middle = (stamps.shape[2] - 1) / 2
    cos, sin = np.cos(nuclei.angle), np.sin(nuclei.angle)
    longer, shorter = (nuclei.semi_axes_um / np.float32(radius * mpp)).T
    # Stamp place = turn @ (block place - centre) + middle, stretched to the nucleus's axes.
    centre = (nuclei.centres_um - (x[0], y[0])) / mpp
    turn = np.stack([cos / longer, sin / longer, -sin / shorter, cos / shorter], 1)
    turn = turn.reshape(-1, 2, 2).astype(np.float64)
    half = 1.25 * nuclei.semi_axes_um[:, 0] / mpp + 1
    low = np.clip(np.floor(centre - half[:, None]), 0, (len(x), len(y))).astype(int)
    high = np.clip(np.ceil(centre + half[:, None]) + 1, 0, (len(x), len(y))).astype(int)
    shift = middle + np.einsum("nij,nj->ni", turn, low - centre)
    for n in np.flatnonzero((high > low).all(1)):
        (left, top), (right, bottom) = low[n], high[n]
        drawn = cv2.warpAffine(
            stamps[nuclei.kind[n], nuclei.variant[n]],
            np.column_stack([turn[n], shift[n]]),
            (int(right - left), int(bottom - top)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        drawn[..., 1] *= nuclei.shade[n]
        spot = stained.nuclei[top:bottom, left:right]
        np.maximum(spot, drawn, out=spot)
