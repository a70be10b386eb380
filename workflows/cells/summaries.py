"""What the nuclei of a slide say in figures and words: how many, how large, how many abnormal."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from slidetriage.models.nuclei.measuring import AREA
from slidetriage.workflows.steps import CellPlan, SlidePlan

from .areas import Area
from .gathering import GatheredCells
from .heeding import describe_stain, list_doubts

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

SEVERAL = 20
"""Nuclei below which a share of abnormal ones says nothing."""


def summarise_cells(
    cells: GatheredCells, areas: tuple[Area, ...], plan: CellPlan, slide: SlidePlan
) -> dict[str, object]:
    """For result.json: of the slide and of each area; lengths in um, areas in mm2 and um2."""
    mpp = slide.slide.mpp
    blocks = cells.blocks
    everywhere = np.arange(len(cells))
    # Looked up, because many regions times many nuclei would be very many questions.
    nuclei, pixels = (
        shapely.STRtree(shapely.points(centres)) for centres in (cells.centres_px, blocks.centres)
    )
    regions = []
    for number, area in enumerate(areas, start=1):
        inside, here = (np.sort(tree.query(area.shape, "contains")) for tree in (nuclei, pixels))
        mm2 = float(area.shape.area) * mpp.x * mpp.y / 1e6
        blurred = {"out_of_focus_share": blocks.choose(here).out_of_focus_share}
        regions.append({"rank": number, **_figures(cells, inside, mm2), **blurred})
    return {
        "looked_at_mm2": plan.looked_at_mm2,
        "tissue_share": share_of_tissue(plan, slide),
        "windows": len(plan.windows),
        "windows_unreadable": len(cells.missing),
        "slide": {
            **_figures(cells, everywhere, plan.looked_at_mm2),
            "out_of_focus_share": blocks.out_of_focus_share,
        },
        "regions": regions,
        "stain": describe_stain(blocks.stain),
        "doubts": list_doubts(blocks),
        "words": describe_cells(cells, plan, slide),
    }


def describe_cells(cells: GatheredCells, plan: CellPlan, slide: SlidePlan) -> str:
    """One sentence for a person."""
    count = len(cells)
    if not len(plan.windows):
        return "Nuclei were not looked for: there was no region to look at."
    where = f"{plan.looked_at_mm2:.2f} mm2 ({share_of_tissue(plan, slide):.0%} of the tissue)"
    if not count:
        return f"No nucleus was found in {where}."
    flagged = np.flatnonzero(cells.assessment.flagged)
    abnormal = len(flagged)
    text = f"{abnormal:,} of {count:,} nuclei in {where} are abnormal ({abnormal / count:.0%})"
    reasons = _common_reasons(cells, flagged)
    return f"{text}: mostly {' and '.join(reasons)}." if reasons else f"{text}."


def share_of_tissue(plan: CellPlan, slide: SlidePlan) -> float:
    """Area looked at over that of all tissue; at most 1, though margins reach onto glass."""
    return min(1.0, plan.looked_at_mm2 / slide.tissue_mm2) if slide.tissue_mm2 > 0 else 0.0


def _figures(cells: GatheredCells, inside: NDArray[np.intp], mm2: float) -> dict[str, object]:
    """Of the nuclei with these indices."""
    count = len(inside)
    flagged = inside[cells.assessment.flagged[inside]]
    sizes = cells.measurements[AREA][inside].astype(np.float64)
    quantiles = np.nanquantile(sizes, QUANTILES) if count else np.full(len(QUANTILES), np.nan)
    return {
        "nuclei": count,
        "abnormal": len(flagged),
        "share_abnormal": len(flagged) / count if count >= SEVERAL else None,
        "nuclei_per_mm2": count / mm2 if mm2 > 0 else None,
        "abnormal_per_mm2": len(flagged) / mm2 if mm2 > 0 else None,
        "area_um2": {
            f"p{round(100 * share):02d}": None if np.isnan(value) else float(value)
            for share, value in zip(QUANTILES, quantiles, strict=True)
        },
        "classes": {
            name: int((cells.assessment.classes[inside] == number).sum())
            for number, name in enumerate(cells.assessment.class_names)
        },
        "reasons": _count_reasons(cells, flagged),
    }


def _count_reasons(cells: GatheredCells, flagged: NDArray[np.intp]) -> dict[str, int]:
    """How many of the flagged, given by index, have each reason first."""
    first = cells.assessment.reasons[flagged, 0]
    return {
        name: int((first == number).sum())
        for number, name in enumerate(cells.assessment.reason_names)
    }


def _common_reasons(cells: GatheredCells, flagged: NDArray[np.intp]) -> list[str]:
    """The two most frequent first reasons, the more frequent first."""
    counted = sorted(_count_reasons(cells, flagged).items(), key=lambda item: -item[1])
    return [name for name, count in counted[:2] if count]
