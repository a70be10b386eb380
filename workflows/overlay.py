"""A picture of the result: the slide, its heatmap and its regions, ready for a slide deck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text
from numpy.typing import NDArray

from slidetriage.wsi import Box

from .results import Region, ScoredTiles
from .settings import RESEARCH_USE
from .sheet import LEFT_IN, Place, Sheet, lay_out, round_down

_FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same
_INK, _FAINT = "#1a1a1a", "#666666"
_GAP_STYLE: dict[str, Any] = {
    "facecolor": (1, 1, 1, 0.6),
    "edgecolor": "#404040",
    "linewidth": 0,
    "hatch": "///////",
}
_DPI = 160


@dataclass(frozen=True, slots=True)
class OverlayCaption:
    """What the picture says in words."""

    slide_id: str
    class_name: str
    """Of the positive class, as in "IDC probability"."""
    score: float | None
    """The slide's probability; None where there is none."""
    threshold: float
    """Of the regions, marked on the colour bar."""
    verdict: str
    model: str


def draw_overlay(
    path: Path,
    *,
    thumbnail: NDArray[np.uint8],
    shown: Box,
    scored: ScoredTiles,
    regions: Sequence[Region],
    caption: OverlayCaption,
) -> None:
    """Draw the slide, and the slide with heatmap and regions beside it, as a PNG.

    The heatmap is clear where the probability is low, so tissue without finding stays visible;
    tiles that could not be read are hatched. Both axes are physical: pixels that are not square
    are drawn so. The same input gives the same bytes with the same matplotlib.

    Parameters
    ----------
    thumbnail
        height x width x 3, sRGB.
    shown
        What the thumbnail shows, in level-0 px; the picture is cut to the slide's bounds.
    """
    with matplotlib.rc_context():
        # A user's matplotlibrc must not change a result.
        matplotlib.rcdefaults()
        matplotlib.rcParams["font.family"] = [_FONT]
        matplotlib.rcParams["text.parse_math"] = False
        matplotlib.rcParams["hatch.linewidth"] = 0.7
        figure = _compose(thumbnail, shown, scored, regions, caption)
        figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


def _compose(
    thumbnail: NDArray[np.uint8],
    shown: Box,
    scored: ScoredTiles,
    regions: Sequence[Region],
    caption: OverlayCaption,
) -> Figure:
    grid = scored.tiles.grid
    mm = np.array([grid.mpp_x, grid.mpp_y]) / 1000  # per level-0 px along x and y
    sheet = lay_out(grid.bounds.width * mm[0], grid.bounds.height * mm[1])
    figure = Figure(figsize=(sheet.width, sheet.height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for place in (sheet.clean, sheet.heated):
        panel = _add_axes(figure, sheet, place)
        _draw_thumbnail(panel, thumbnail, shown, grid.bounds, mm)
    colors = _colors()
    _draw_heat(panel, scored, colors, mm)
    _draw_gaps(panel, scored, mm)
    cell_pt = grid.stride_px * grid.mpp / 1000 / sheet.mm_per_inch * 72
    _draw_outlines(panel, regions, mm, width_pt=min(1.1, 0.25 * cell_pt))
    if not scored.read.any():
        _say(panel, "No tile could be read" if len(scored.tiles) else "No tissue found")
    _draw_color_bar(_add_axes(figure, sheet, sheet.bar), colors, caption)
    words = _add_axes(figure, sheet, (0, 0, sheet.width, sheet.height))
    words.set(xlim=(0, sheet.width), ylim=(0, sheet.height))
    words.set_axis_off()
    _write_words(words, sheet, caption)
    _draw_key(words, sheet, scored, regions=len(regions), threshold=caption.threshold)
    return figure


def _add_axes(figure: Figure, sheet: Sheet, place: Place) -> Axes:
    x, y, w, h = place
    return figure.add_axes((x / sheet.width, y / sheet.height, w / sheet.width, h / sheet.height))


def _draw_thumbnail(
    axes: Axes, thumbnail: NDArray[np.uint8], shown: Box, bounds: Box, mm: NDArray[np.float64]
) -> None:
    left, right = shown.x * mm[0], (shown.x + shown.width) * mm[0]
    top, bottom = shown.y * mm[1], (shown.y + shown.height) * mm[1]
    axes.imshow(thumbnail, extent=(left, right, bottom, top), aspect="auto")
    axes.set_xlim(bounds.x * mm[0], (bounds.x + bounds.width) * mm[0])
    axes.set_ylim((bounds.y + bounds.height) * mm[1], bounds.y * mm[1])
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#b0b0b0", linewidth=0.6)


def _colors() -> Colormap:
    """Viridis, even to the eye and safe for the colour-blind; clear at 0 and densest from 0.6."""
    steps = np.linspace(0, 1, 256)
    table = matplotlib.colormaps["viridis"](steps)
    table[:, 3] = 0.75 * np.clip((steps - 0.1) / 0.5, 0, 1)
    return ListedColormap(table)


def _draw_heat(axes: Axes, scored: ScoredTiles, colors: Colormap, mm: NDArray[np.float64]) -> None:
    values = np.ma.masked_invalid(scored.on_grid(scored.probability))
    x, y = scored.column_edges_px * mm[0], scored.row_edges_px * mm[1]
    axes.pcolormesh(x, y, values, cmap=colors, vmin=0, vmax=1, antialiased=False, linewidth=0)


def _draw_gaps(axes: Axes, scored: ScoredTiles, mm: NDArray[np.float64]) -> None:
    left, top, right, bottom = (scored.cells_px[~scored.read] * np.tile(mm, 2)).T
    corners = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1)
    axes.add_collection(PolyCollection(list(corners.reshape(-1, 4, 2)), **_GAP_STYLE))


def _draw_outlines(
    axes: Axes, regions: Sequence[Region], mm: NDArray[np.float64], *, width_pt: float
) -> None:
    """Outline the regions, thinner where cells are small so that lines leave something to see."""
    parts = shapely.get_parts([region.shape for region in regions])
    rings = [ring for polygon in parts for ring in (polygon.exterior, *polygon.interiors)]
    if not rings:
        return
    outlines = [Outline(np.asarray(ring.coords) * mm, closed=True) for ring in rings]
    patch = PathPatch(Outline.make_compound_path(*outlines), fill=False, joinstyle="miter")
    patch.set(edgecolor="black", linewidth=width_pt)
    patch.set_path_effects([Stroke(linewidth=2.2 * width_pt, foreground="white"), Normal()])
    axes.add_patch(patch)


def _say(axes: Axes, words: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "boxstyle": "round,pad=0.5"}
    axes.text(
        0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=13,
        color=_INK, bbox=box,
    )  # fmt: skip


def _draw_color_bar(axes: Axes, colors: Colormap, caption: OverlayCaption) -> None:
    ramp = np.linspace(0, 1, 256)[:, None]
    axes.imshow(ramp, cmap=colors, origin="lower", extent=(0, 1, 0, 1), aspect="auto")
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set(xticks=[], yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.tick_params(labelsize=8, length=3, labelcolor=_INK, color=_INK)
    axes.set_ylabel(_legible(f"{caption.class_name} probability"), fontsize=9, color=_INK)
    for spine in axes.spines.values():
        spine.set(color=_INK, linewidth=0.6)
    axes.axhline(caption.threshold, color="black", linewidth=1.4)
    axes.plot([-0.4], [caption.threshold], ">", markersize=5.5, color="black", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _write_words(axes: Axes, sheet: Sheet, caption: OverlayCaption) -> None:
    name = caption.class_name
    score = "no score" if caption.score is None else f"{name} score {caption.score:.2f}"
    facts = "   ·   ".join(part for part in (score, caption.verdict, caption.model) if part)
    lines: list[tuple[float, str, dict[str, Any]]] = [
        (sheet.height - 0.45, caption.slide_id, {"fontsize": 15, "fontweight": "bold"}),
        (sheet.height - 0.76, facts, {"fontsize": 10.5}),
        (0.18, RESEARCH_USE, {"fontsize": 8.5, "color": _FAINT}),
    ]
    for y, words, style in lines:
        text = axes.text(LEFT_IN, y, _legible(words), **{"color": _INK, **style})
        while (excess := _width_in(text) / (sheet.width - 2 * LEFT_IN)) > 1:
            kept = min(len(text.get_text()) - 2, int(len(text.get_text()) / excess))
            text.set_text(text.get_text()[:kept] + "…")


def _draw_key(
    axes: Axes, sheet: Sheet, scored: ScoredTiles, *, regions: int, threshold: float
) -> None:
    """Under the panels, from left to right: the scale bar, and what the marks mean."""
    y = min(sheet.clean[1], sheet.heated[1]) - 0.22
    length_mm = round_down(sheet.mm_per_inch * min(1.5, sheet.clean[2]))
    length = length_mm / sheet.mm_per_inch
    axes.plot([LEFT_IN, LEFT_IN + length], [y, y], color=_INK, linewidth=2.5, solid_capstyle="butt")
    x = _note(axes, LEFT_IN + length, y, f"{length_mm:g} mm")
    if scored.read.any():
        axes.add_patch(Rectangle((x, y - 0.06), 0.2, 0.12, fill=False, linewidth=1.1))
        noun = "region" if regions == 1 else "regions"
        x = _note(axes, x + 0.2, y, f"{regions or 'no'} {noun}, probability ≥ {threshold:g}")
    gaps = int((~scored.read).sum())
    if gaps:
        axes.add_patch(Rectangle((x, y - 0.06), 0.2, 0.12, **_GAP_STYLE))
        _note(axes, x + 0.2, y, f"{gaps} {'tile' if gaps == 1 else 'tiles'} not readable")


def _note(axes: Axes, x: float, y: float, words: str) -> float:
    """Write beside a mark; returns where the next mark may begin."""
    text = axes.text(x + 0.08, y, words, fontsize=9, va="center_baseline", color=_INK)
    return x + 0.08 + _width_in(text) + 0.35


def _width_in(text: Text) -> float:
    return float(text.get_window_extent().width) / _DPI


def _legible(words: str) -> str:
    """Put a box for each character the font lacks, and no line breaks."""
    known = get_font(findfont(_FONT)).get_charmap()
    return "".join(c if ord(c) in known else "□" for c in " ".join(words.split()))
