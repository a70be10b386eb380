"""result.json: what was found on a slide, for programs and for the pages made from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson

from .identity import SCHEMA_VERSION
from .results import Region, ScoredTiles
from .settings import RESEARCH_USE
from .steps import SlidePlan, SlideResult

if TYPE_CHECKING:
    from slidetriage.models import Bundle, Card, OperatingPoint
    from slidetriage.wsi import Slide

RESULT = "result.json"


def result_record(
    result: SlideResult,
    plan: SlidePlan,
    scored: ScoredTiles,
    regions: tuple[Region, ...],
    bundle: Bundle,
    *,
    cells: dict[str, object] | None = None,
) -> dict[str, object]:
    """The content of result.json; lengths in um, areas in mm2, boxes in level-0 px.

    `cells` is what `write_cells` said of the slide's nuclei.
    """
    card, slide = bundle.card, plan.slide
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_USE,
        "slide_id": result.slide_id,
        "state": result.state,
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "score": result.score,
        "ruled_out": result.ruled_out,
        "operating_points": {
            "slide": _point(card.slide_threshold),
            "rule_out": None if card.rule_out is None else _point(card.rule_out),
        },
        "conformal": None if card.conformal is None else card.conformal.to_json(),
        "novelty": _novelty(result, scored, card),
        "model": {
            "name": card.name,
            "version": card.version,
            "sha256": bundle.identity,
            "positive_class": card.positive.name,
            "tile_threshold": card.tile_threshold.value,
        },
        "scale": {
            "mpp_given": {"x": slide.mpp.x, "y": slide.mpp.y, "source": slide.mpp.source},
            "mpp_asked": card.mpp,
            "tile_px": card.tile_px,
            "tile_um": card.tile_px * card.mpp,
        },
        "tiles": _tiles(result, scored, card),
        "coverage": _coverage(scored),
        "tissue_mm2": result.tissue_mm2,
        "flagged_mm2": result.flagged_mm2,
        "regions": [_region_record(rank, region) for rank, region in enumerate(regions, start=1)],
        "slide": slide_facts(slide),
        "cells": cells,
        "warnings": list(result.warnings),
    }


def slide_facts(slide: Slide) -> dict[str, object]:
    """What the slide's file says of itself."""
    return {
        "vendor": slide.vendor,
        "reader": slide.reader,
        "reader_reason": slide.reader_reason,
        "averaged_levels": [n for n, level in enumerate(slide.levels) if level.averaged],
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "objective_power": slide.objective_power,
        "bounds_px": asdict(slide.bounds),
    }


def read_result(folder: Path) -> SlideResult:
    """The result that was published in `folder`."""
    record = orjson.loads((folder / RESULT).read_bytes())
    return SlideResult(
        slide_id=record["slide_id"],
        state=record["state"],
        verdict=record["verdict"],
        score=record["score"],
        directory=folder.name,
        regions=len(record["regions"]),
        flagged_mm2=record["flagged_mm2"],
        tissue_mm2=record["tissue_mm2"],
        tiles=record["tiles"]["planned"],
        unreadable=record["tiles"]["unreadable"],
        warnings=tuple(record["warnings"]),
        reasons=tuple(record["reasons"]),
        ruled_out=record["ruled_out"],
        novelty=None if record["novelty"] is None else record["novelty"]["distance"],
        nuclei=None if record["cells"] is None else record["cells"]["slide"]["nuclei"],
        abnormal_nuclei=None if record["cells"] is None else record["cells"]["slide"]["abnormal"],
    )


def _point(point: OperatingPoint) -> dict[str, object]:
    return {
        "threshold": point.value,
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
        "chosen": point.chosen,
        "measured_on": point.measured_on,
    }


def _tiles(result: SlideResult, scored: ScoredTiles, card: Card) -> dict[str, object]:
    read = scored.read
    return {
        "planned": result.tiles,
        "read": int(read.sum()),
        "unreadable": result.unreadable,
        "above_threshold": int((scored.probability[read] >= card.tile_threshold.value).sum()),
    }


def _novelty(result: SlideResult, scored: ScoredTiles, card: Card) -> dict[str, object] | None:
    """How unlike the slide and its tiles are what the model learned from; None if unknown."""
    if card.novelty is None or result.novelty is None or scored.novelty is None:
        return None
    beyond = scored.novelty[scored.read] > card.novelty.tile_limit
    return {
        "distance": result.novelty,
        "limit": card.novelty.limit,
        "familiar_slides_within": card.novelty.kept,
        "tiles_beyond": int(beyond.sum()),
        "tile_limit": card.novelty.tile_limit,
    }


def _coverage(scored: ScoredTiles) -> float | None:
    """Share of the tissue in the planned tiles that was read; None without tissue."""
    planned = float(scored.tiles.tissue.sum())
    return float(np.nansum(scored.coverage)) / planned if planned > 0 else None


def _region_record(rank: int, region: Region) -> dict[str, object]:
    left, top, right, bottom = region.shape.bounds
    inside = region.shape.representative_point()
    return {
        "rank": rank,
        "area_mm2": region.area_mm2,
        "mean_probability": region.mean_probability,
        "max_probability": region.max_probability,
        "tiles": region.tile_count,
        "box_px": {"x": left, "y": top, "width": right - left, "height": bottom - top},
        "inside_px": {"x": inside.x, "y": inside.y},
    }
