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

from .evidence import Evidence, WeightedBlur, measure_stain
from .filler import find_filler
from .ink import find_ink
from .regions import Bools, Um, close_gaps, fill_holes, grow, measure_areas, open_necks, touching


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
    scanned = valid & ~find_filler(rgb, mpp)
    height, width = scanned.shape
    columns = max(1, round(width * mpp[0] / max(mpp[0], settings.work_um)))
    rows = max(1, round(height * mpp[1] / max(mpp[1], settings.work_um)))
    um = (width * mpp[0] / columns, height * mpp[1] / rows)
    share = _resize(scanned.astype(np.uint8) * 255, columns, rows)
    seen = share >= 128
    # What was not scanned bleeds one pixel into what was, by averaging and by JPEG.
    whole = ndi.binary_erosion(share == 255, border_value=1)
    if not whole.any():
        whole = seen
    if not seen.any():
        return np.zeros_like(scanned)
    mask = _find(_resize(rgb, columns, rows), seen, whole, um, settings)
    mask |= ndi.binary_dilation(mask) & ~seen
    smooth = Image.fromarray(mask.astype(np.uint8) * 255)
    full = np.asarray(smooth.resize((width, height), Image.Resampling.BILINEAR)) >= 128
    return np.asarray(full & scanned, np.bool_)


def _resize(image: NDArray[np.uint8], columns: int, rows: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))


def _find(
    small: NDArray[np.uint8], seen: Bools, whole: Bools, um: Um, settings: StainSettings
) -> Bools:
    """Tissue at working scale: `seen` can be tissue, `whole` is what evidence comes from."""
    blur = WeightedBlur(whole, um)
    evidence = measure_stain(small, blur)
    coloured, mask = _clear(evidence, blur, settings)
    ink = find_ink(small, evidence.density, mask & seen, um)
    free = seen & ~ink
    mask &= free
    # Only broad areas: a rim around all tissue would be faint as well.
    faint = open_necks(_faint(evidence, blur, settings) & free & ~mask, 64, um)
    mask |= touching(faint, mask, 0.1, um)
    mask = close_gaps(mask, settings.gap_um, um) & free
    mask &= open_necks(mask, settings.strip_um, um) | coloured
    mask &= ~grow(seen & ~mask, settings.trim_um, um)
    mask = fill_holes(mask, seen, settings.hole_mm2, um, rim_mm2=settings.rim_mm2) & free
    return _keep_stained(mask, evidence, settings, um)


def _clear(evidence: Evidence, blur: WeightedBlur, settings: StainSettings) -> tuple[Bools, Bools]:
    """What is tissue by colour alone, and what is by colour or texture."""
    chroma, fine_um = evidence.chroma, 24.0
    coloured = blur(np.minimum(chroma / settings.full_chroma, 1), fine_um) > settings.coloured
    textured = blur(evidence.texture, fine_um) > settings.textured
    tinted = blur(np.minimum(chroma, 0.05), fine_um) > settings.tinted
    return coloured, coloured | (textured & tinted)


def _faint(evidence: Evidence, blur: WeightedBlur, settings: StainSettings) -> Bools:
    """What is tissue if it adjoins tissue; the window is a fat cell's, the cap keeps dust small."""
    wide_um, cap = 48.0, 0.03
    textured = blur(np.minimum(evidence.texture, cap), wide_um) > settings.faint_textured
    tinted = blur(np.minimum(evidence.chroma, cap), wide_um) > settings.faint_tinted
    return np.asarray(textured & tinted, np.bool_)


def _keep_stained(mask: Bools, evidence: Evidence, settings: StainSettings, um: Um) -> Bools:
    """The pieces that are large enough and of which enough is clearly stained."""
    pieces, count = ndi.label(mask)
    area = measure_areas(pieces, count, um)
    clearly = np.where(evidence.chroma > settings.full_chroma, pieces, 0)
    stained = measure_areas(clearly, count, um)
    keep = (area >= settings.piece_mm2) & (stained >= settings.stained_share * area)
    keep[0] = False
    return np.asarray(keep[pieces], np.bool_)
