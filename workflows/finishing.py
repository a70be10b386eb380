"""A slide's features become its score and evidence, written to its folder and published."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slidetriage.models import BagPrediction, Bundle

from .decoding import Decoder
from .features import FEATURES, iterate_features, read_coverage
from .geojson import GeoJsonFrame, write_annotations, write_tiles
from .heatmap import write_heatmap
from .manifest import provenance, verified_key, write_manifest
from .overlay import OverlayCaption, draw_overlay
from .planning import PICTURE_FILE
from .publishing import publish, write_json
from .records import RESULT, read_result, result_record
from .regions import find_regions
from .results import Region, ScoredTiles
from .settings import Settings
from .steps import FinishStep, LocateStep, SlidePlan, SlideResult
from .unchanged import check_gaps, check_unchanged
from .verdicts import judge, outside_range

if TYPE_CHECKING:
    # Loaded only where nuclei are looked for: Arrow and more come with it.
    from slidetriage.models.nuclei import NucleusDetector

    from .cells.output import CellFindings

CONTENT = "content"


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Everything that a slide's folder is written from."""

    plan: SlidePlan
    scored: ScoredTiles
    regions: tuple[Region, ...]
    result: SlideResult
    runtimes: tuple[str, ...]
    cells: CellFindings | None = None


def finish_slide(
    step: FinishStep,
    bundle: Bundle,
    settings: Settings,
    out: Path,
    *,
    decoder: Decoder,
    detector: NucleusDetector | None = None,
) -> SlideResult:
    """Score the slide, write its folder, and publish it in `out` by one rename.

    The detector is the one that looked for nuclei, where that was done.

    Raises
    ------
    PixelsUnreadable
        More tiles were unreadable than the settings allow (E_TOO_MANY_GAPS), or the file changed
        while it was read (E_UNSTABLE).
    OutputError
        The folder cannot be written.
    """
    plan = step.plan
    if verified_key(out / plan.directory) == plan.key:
        return read_result(out / plan.directory)  # a worker died right after publishing it
    content, features = step.staging / CONTENT, step.staging / FEATURES
    if not features.exists() and (content / FEATURES).exists():
        (content / FEATURES).rename(features)  # a worker died after it had moved them
    shutil.rmtree(content, ignore_errors=True)
    coverage = read_coverage(features)
    check_gaps(plan, ~np.isnan(coverage), settings, step.error)
    scored, found = score_tiles(plan, features, coverage, bundle)
    regions = find_regions(scored, bundle.card.tile_threshold.value)
    result = summarise(plan, scored, found, regions, bundle)
    cells = None
    if step.cells is not None and settings.cells is not None and detector is not None:
        from .cells.heeding import heed_pixels
        from .cells.output import add_cells, find_cells

        cells = find_cells(
            plan, step.cells, step.staging, settings=settings.cells, detector=detector
        )
        result = heed_pixels(add_cells(result, cells), cells.cells.blocks)
    check_unchanged(plan, decoder)
    content.mkdir()
    if len(step.runtimes) > 1:
        mixed = f"its tiles were encoded in different ways: {', '.join(step.runtimes)}"
        result = replace(result, warnings=(*result.warnings, mixed))
    findings = Findings(plan, scored, regions, result, step.runtimes, cells)
    _write_content(content, step.staging, findings, bundle, settings)
    publish(content, out / result.directory)
    return result


def flag_regions(step: LocateStep, bundle: Bundle, settings: Settings) -> tuple[Region, ...]:
    """The regions that the model flags; raises `PixelsUnreadable` as `finish_slide` does."""
    coverage = read_coverage(step.staging / FEATURES)
    check_gaps(step.plan, ~np.isnan(coverage), settings, step.error)
    scored, _ = score_tiles(step.plan, step.staging / FEATURES, coverage, bundle)
    return find_regions(scored, bundle.card.tile_threshold.value)


def score_tiles(
    plan: SlidePlan, features: Path, coverage: NDArray[np.float32], bundle: Bundle
) -> tuple[ScoredTiles, BagPrediction | None]:
    """What the model says of the tiles that were read, and of the slide; None without tissue."""
    if np.isnan(coverage).all():
        unknown = np.full(len(coverage), np.nan, np.float32)
        return ScoredTiles(plan.tiles, unknown, unknown, coverage), None
    found = bundle.predict_stream(iterate_features(features))
    tiles = ScoredTiles(
        plan.tiles, found.tile_scores, found.attention, coverage, found.tile_novelty
    )
    return tiles, found


def summarise(
    plan: SlidePlan,
    scored: ScoredTiles,
    found: BagPrediction | None,
    regions: tuple[Region, ...],
    bundle: Bundle,
) -> SlideResult:
    """The slide's result in one line."""
    warnings = list(plan.slide.warnings)
    missing = int((~scored.read).sum())
    if missing:
        warnings.append(f"{missing} of {len(scored.read)} tissue tiles could not be read")
    score, novelty = (None, None) if found is None else (found.probability, found.novelty)
    strange = outside_range(bundle.card, vendor=plan.slide.vendor, stain=plan.stain)
    judgement = judge(bundle.card, score, novelty, missing=missing, strange=strange)
    return SlideResult(
        slide_id=plan.slide_id,
        state="DONE_WITH_GAPS" if missing else "DONE",
        verdict=judgement.verdict,
        score=score,
        directory=plan.directory,
        regions=len(regions),
        flagged_mm2=sum(region.area_mm2 for region in regions),
        tissue_mm2=plan.tissue_mm2,
        tiles=len(scored.read),
        unreadable=missing,
        warnings=tuple(warnings),
        reasons=judgement.reasons,
        ruled_out=judgement.ruled_out,
        novelty=novelty,
    )


def _write_content(
    content: Path, staging: Path, findings: Findings, bundle: Bundle, settings: Settings
) -> None:
    """Write every file of the slide's folder; the manifest comes last."""
    plan, scored, regions = findings.plan, findings.scored, findings.regions
    card, result = bundle.card, findings.result
    origin = provenance(plan, bundle, settings, findings.runtimes)
    suffix = ".geojson.gz" if settings.compress_geojson else ".geojson"
    frame = GeoJsonFrame(
        slide_id=plan.slide_id,
        class_name=card.positive.qupath_class,
        class_color=card.positive.color,
        bounds_px=(plan.slide.bounds.x, plan.slide.bounds.y),
        crop_to_bounds=settings.crop_to_bounds,
        metadata={"model": f"{card.name} {card.version}", "result": plan.key[:12]},
    )
    write_heatmap(
        content / "heatmap.zarr",
        scored,
        ngff=settings.ngff,
        name=plan.slide_id,
        provenance=origin,
    )
    write_annotations(content / f"annotations{suffix}", regions, frame)
    write_tiles(content / f"tiles{suffix}", scored, frame)
    thumbnail = np.load(staging / PICTURE_FILE, allow_pickle=False)
    draw_overlay(
        content / "overlay.png",
        thumbnail=thumbnail,
        shown=plan.slide.bounds,
        scored=scored,
        regions=regions,
        caption=OverlayCaption(
            slide_id=plan.slide_id,
            class_name=card.positive.name,
            score=result.score,
            threshold=card.tile_threshold.value,
            verdict=result.verdict,
            model=f"{card.name} {card.version}",
        ),
    )
    if settings.keep_features:
        (staging / FEATURES).rename(content / FEATURES)
    cells = _write_cells(content, findings, frame, origin)
    write_json(content / RESULT, result_record(result, plan, scored, regions, bundle, cells=cells))
    write_manifest(content, plan, result, origin)


def _write_cells(
    content: Path, findings: Findings, frame: GeoJsonFrame, origin: dict[str, object]
) -> dict[str, object] | None:
    """Write the files of the nuclei; what result.json says of them, None where none were sought."""
    if findings.cells is None:
        return None
    from .cells.label_places import LabelPlace
    from .cells.output import write_cells

    return write_cells(
        content,
        findings.cells,
        findings.plan,
        frame,
        provenance={**origin, "cells": findings.cells.provenance},
        labels=LabelPlace.beside(content / "heatmap.zarr"),
    )
