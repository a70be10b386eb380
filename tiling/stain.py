"""The default tissue masker: stain colour and texture relative to the glass, at physical scales.

Light and shadow change all channels by one factor, so the *difference* of their logarithms (the
chroma) belongs to the stain alone. Fat is nearly colourless, but its cells are a net of dark lines
on bright glass: texture finds it, and faint colour tells it from scratches and dried medium.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from .bands import choose_labels, resize
from .evidence import Evidence, Scene, iterate_evidence, measure_glass
from .filler import find_filler
from .ink import find_ink
from .regions import Bools, Um, close_gaps, fill_holes, grow, measure_areas, open_necks, touching

FAINT_UM = 48.0
"""Window for what is faint: a fat cell's."""

# A bit for each sign, because a byte for each is a quarter of all memory that is needed here.
_SEEN = 1
_COLOURED = 2
"""Tissue by colour alone."""
_CLEAR = 4
"""Tissue by colour or texture."""
_FAINT = 8
"""Tissue if it adjoins tissue."""
_STAINED = 16
"""In full colour, this very pixel."""
_INK = 32


@dataclass(frozen=True, slots=True)
class StainSettings:
    """Scales and thresholds, set on hand-drawn outlines (chroma is in natural log units)."""

    work_um: float = 16.0
    """Pixel size at which tissue is looked for; a coarser thumbnail is taken as it is."""
    full_chroma: float = 0.05
    """Chroma above the noise that counts in full; four grey levels of colour make 0.02."""
    coloured: float = 0.5
    """Share of full chroma around a pixel that makes it tissue whatever its texture."""
    textured: float = 0.006
    """Mean depth of dark structures that makes it tissue if there is ..."""
    tinted: float = 0.002
    """... this much chroma."""
    faint_textured: float = 0.0035
    """The same two for what adjoins tissue, over a wider window."""
    faint_tinted: float = 0.0005
    gap_um: float = 100.0
    """Gaps up to twice this width are closed."""
    strip_um: float = 48.0
    """Uncoloured strips up to twice this width are edges of glass and medium."""
    trim_um: float = 16.0
    """The windows reach past the edge of the tissue: so much is taken off again."""
    hole_mm2: float = 1.0
    """Larger holes are lumina and tears: background."""
    rim_mm2: float = 0.08
    """The same for what lies between tissue and the edge of what was scanned."""
    piece_mm2: float = 0.03
    """Smaller pieces are debris."""
    stained_share: float = 0.02
    """A piece of which less is clearly stained is glass, dust or dried medium."""


def mask_stained(
    rgb: NDArray[np.uint8],
    valid: Bools,
    mpp: tuple[float, float],
    settings: StainSettings | None = None,
) -> Bools:
    """Tissue by its stain: see the module's docstring, and `StainSettings` for the thresholds."""
    settings = settings or StainSettings()
    scanned = find_filler(rgb, mpp)
    np.logical_and(valid, ~scanned, out=scanned)
    height, width = scanned.shape
    columns = max(1, round(width * mpp[0] / max(mpp[0], settings.work_um)))
    rows = max(1, round(height * mpp[1] / max(mpp[1], settings.work_um)))
    um = (width * mpp[0] / columns, height * mpp[1] / rows)
    small = resize(rgb, columns, rows, Image.Resampling.BOX)
    share = resize(scanned.view(np.uint8) * np.uint8(255), columns, rows, Image.Resampling.BOX)
    signs = _look(small, share, um, settings)
    del small, share  # all there is to know of them is in the signs
    mask = _find(signs, um, settings)
    mask |= ndi.binary_dilation(mask) & ~_has(signs, _SEEN)
    full = resize(mask.view(np.uint8) * np.uint8(255), width, height, Image.Resampling.BILINEAR)
    return np.asarray((full >= 128) & scanned, np.bool_)


def _has(signs: NDArray[np.uint8], sign: int) -> Bools:
    return np.asarray((signs & np.uint8(sign)) != 0)


def _look(
    rgb: NDArray[np.uint8], share: NDArray[np.uint8], um: Um, settings: StainSettings
) -> NDArray[np.uint8]:
    """The signs of tissue and ink at working scale; `share` is how much was scanned, 0 to 255."""
    seen = share >= 128
    signs = seen.view(np.uint8) * np.uint8(_SEEN)
    if not seen.any():
        return signs
    # What was not scanned bleeds one pixel into what was, by averaging and by JPEG.
    whole = ndi.binary_erosion(share == 255, border_value=1)
    scene = Scene(rgb, whole if whole.any() else seen, um)
    glass = measure_glass(scene)
    for band, evidence in iterate_evidence(scene, glass, blur_um=FAINT_UM):
        coloured, clear = _clear(evidence, settings)
        for sign, found in (
            (_COLOURED, coloured),
            (_CLEAR, clear),
            (_FAINT, _faint(evidence, settings)),
            (_STAINED, evidence.chroma > settings.full_chroma),
        ):
            signs[band.rows] |= found[band.core] * np.uint8(sign)
    ink = find_ink(rgb, glass.density, _has(signs, _CLEAR) & seen, um)
    signs |= ink * np.uint8(_INK)
    return signs


def _find(signs: NDArray[np.uint8], um: Um, settings: StainSettings) -> Bools:
    """Tissue at working scale."""
    seen = _has(signs, _SEEN)
    free = seen & ~_has(signs, _INK)
    mask = _has(signs, _CLEAR) & free
    # Only broad areas: a rim around all tissue would be faint as well.
    faint = open_necks(_has(signs, _FAINT) & free & ~mask, 64, um)
    mask |= touching(faint, mask, 0.1, um)
    mask = close_gaps(mask, settings.gap_um, um) & free
    mask &= open_necks(mask, settings.strip_um, um) | _has(signs, _COLOURED)
    mask &= ~grow(seen & ~mask, settings.trim_um, um)
    mask = fill_holes(mask, seen, settings.hole_mm2, um, rim_mm2=settings.rim_mm2) & free
    return _keep_stained(mask, _has(signs, _STAINED), settings, um)


def _clear(evidence: Evidence, settings: StainSettings) -> tuple[Bools, Bools]:
    """What is tissue by colour alone, and what is by colour or texture."""
    chroma, blur, fine_um = evidence.chroma, evidence.blur, 24.0
    coloured = blur(np.minimum(chroma / settings.full_chroma, 1), fine_um) > settings.coloured
    textured = blur(evidence.texture, fine_um) > settings.textured
    tinted = blur(np.minimum(chroma, 0.05), fine_um) > settings.tinted
    return coloured, coloured | (textured & tinted)


def _faint(evidence: Evidence, settings: StainSettings) -> Bools:
    """What is tissue if it adjoins tissue; the cap keeps dust small."""
    blur, cap = evidence.blur, 0.03
    textured = blur(np.minimum(evidence.texture, cap), FAINT_UM) > settings.faint_textured
    tinted = blur(np.minimum(evidence.chroma, cap), FAINT_UM) > settings.faint_tinted
    return np.asarray(textured & tinted, np.bool_)


def _keep_stained(mask: Bools, stained: Bools, settings: StainSettings, um: Um) -> Bools:
    """The pieces that are large enough and of which enough is clearly stained."""
    pieces, count = ndi.label(mask)
    area = measure_areas(pieces, count, um)
    enough = settings.stained_share * area
    keep = (area >= settings.piece_mm2) & (measure_areas(pieces, count, um, stained) >= enough)
    keep[0] = False
    return choose_labels(pieces, keep)
