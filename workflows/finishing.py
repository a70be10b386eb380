"""A slide's features become its score and evidence, written to its folder and published."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import PixelsUnreadable
from slidetriage.models import BagPrediction, Bundle
from slidetriage.wsi import file_signatures

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
from .steps import FinishStep, SlidePlan, SlideResult
from .verdicts import judge, outside_range

CONTENT = "content"


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Everything that a slide's folder is written from."""

    plan: SlidePlan
    scored: ScoredTiles
    regions: tuple[Region, ...]
    result: SlideResult
    runtimes: tuple[str, ...]


def finish_slide(
    step: FinishStep, bundle: Bundle, settings: Settings, out: Path, decoder: Decoder
) -> SlideResult:
    """Score the slide, write its folder, and publish it in `out` by one rename.

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
    coverage = read_coverage(step.staging / FEATURES)
    check_gaps(plan, ~np.isnan(coverage), settings, step.error)
    scored, found = score_tiles(plan, step.staging / FEATURES, coverage, bundle)
    regions = find_regions(scored, bundle.card.tile_threshold.value)
    result = summarise(plan, scored, found, regions, bundle)
    check_unchanged(plan, decoder)
    content = step.staging / CONTENT
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir()
    if len(step.runtimes) > 1:
        mixed = f"its tiles were encoded in different ways: {', '.join(step.runtimes)}"
        result = replace(result, warnings=(*result.warnings, mixed))
    findings = Findings(plan, scored, regions, result, step.runtimes)
    _write_content(content, step.staging, findings, bundle, settings)
    publish(content, out / result.directory)
    return result


def check_gaps(plan: SlidePlan, read: NDArray[np.bool_], settings: Settings, error: str) -> None:
    """Raise `PixelsUnreadable` where more tiles are missing than may be."""
    missing = int((~read).sum())
    if missing > max(1, settings.max_unreadable * len(read)) or (missing and not read.any()):
        raise PixelsUnreadable(
            f"{plan.slide.path.name}: {missing} of {len(read)} tissue tiles could not be read"
            + (f" (one of them: {error.rstrip('.')})." if error else "."),
            mend="Copy the slide again, or allow more with --max-unreadable.",
            code="E_TOO_MANY_GAPS",
        )


def check_unchanged(plan: SlidePlan, decoder: Decoder) -> None:
    """Raise `PixelsUnreadable` (E_UNSTABLE) where the slide is not what was planned.

    It is read through again only where one of its files was touched.
    """
    try:
        touched = file_signatures(plan.slide.files) != plan.signatures
    except OSError:
        touched = True
    if touched and decoder.hash(plan.slide) != plan.sha256:
        raise PixelsUnreadable(
            f"{plan.slide.path.name}: the file changed while it was read.",
            mend="Wait until it is written completely, then run again.",
            code="E_UNSTABLE",
        )


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
    write_json(content / RESULT, result_record(result, plan, scored, regions, bundle))
    write_manifest(content, plan, result, origin)
