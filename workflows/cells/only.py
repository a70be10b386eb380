"""A slide of which only the nuclei are asked for: planned and published without the model."""

from __future__ import annotations

import shutil
from pathlib import Path

from slidetriage.errors import PixelsUnreadable
from slidetriage.models.nuclei import NucleusDetector
from slidetriage.workflows.decoding import Decoder
from slidetriage.workflows.geojson import GeoJsonFrame
from slidetriage.workflows.identity import SCHEMA_VERSION
from slidetriage.workflows.manifest import (
    list_versions,
    slide_provenance,
    verified_key,
    write_manifest,
)
from slidetriage.workflows.publishing import publish, write_json
from slidetriage.workflows.records import RESULT, read_result, slide_facts
from slidetriage.workflows.settings import RESEARCH_USE, Settings
from slidetriage.workflows.steps import FinishStep, SlidePlan, SlideResult
from slidetriage.workflows.unchanged import check_unchanged

from .heeding import heed_pixels
from .label_places import LabelPlace
from .output import LABELS, CellFindings, find_cells, write_cells

CONTENT = "content"


def finish_cells(
    step: FinishStep, detector: NucleusDetector, settings: Settings, out: Path, decoder: Decoder
) -> SlideResult:
    """Write the slide's folder from its nuclei alone, and publish it in `out` by one rename.

    Raises
    ------
    PixelsUnreadable
        More windows were unreadable than the settings allow (E_TOO_MANY_GAPS), or the file changed
        while it was read (E_UNSTABLE).
    OutputError
        The folder cannot be written.
    """
    plan, windows = step.plan, step.cells
    assert windows is not None
    assert settings.cells is not None
    if verified_key(out / plan.directory) == plan.key:
        return read_result(out / plan.directory)
    found = find_cells(plan, windows, step.staging, settings=settings.cells, detector=detector)
    _check_gaps(plan, found, settings, step.error)
    check_unchanged(plan, decoder)
    content = step.staging / CONTENT
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir()
    origin = _provenance(plan, found, settings, step.detectors)
    frame = GeoJsonFrame(
        slide_id=plan.slide_id,
        class_name="Nucleus",
        bounds_px=(plan.slide.bounds.x, plan.slide.bounds.y),
        crop_to_bounds=settings.crop_to_bounds,
        metadata={"detector": detector.name, "result": plan.key[:12]},
    )
    labels = LabelPlace.alone(content / LABELS, settings.ngff)
    record = write_cells(content, found, plan, frame, provenance=origin, labels=labels)
    result = _summarise(plan, found, str(record["words"]))
    result = heed_pixels(result, found.cells.blocks, stated=plan.stain)
    write_json(content / RESULT, _result_record(result, plan, found, record))
    write_manifest(content, plan, result, origin)
    publish(content, out / result.directory)
    return result


def _check_gaps(plan: SlidePlan, found: CellFindings, settings: Settings, error: str) -> None:
    planned, missing = len(found.plan.windows), len(found.cells.missing)
    if missing > max(1, settings.max_unreadable * planned) or (missing and missing == planned):
        raise PixelsUnreadable(
            f"{plan.slide.path.name}: {missing} of {planned} windows could not be read"
            + (f" (one of them: {error.rstrip('.')})." if error else "."),
            mend="Copy the slide again, or allow more with --max-unreadable.",
            code="E_TOO_MANY_GAPS",
        )


def _summarise(plan: SlidePlan, found: CellFindings, words: str) -> SlideResult:
    missing = len(found.cells.missing)
    warnings = [*plan.slide.warnings, *found.plan.warnings]
    if missing:
        warnings.append(f"{missing} of {len(found.plan.windows)} windows could not be read")
    return SlideResult(
        slide_id=plan.slide_id,
        state="DONE_WITH_GAPS" if missing else "DONE",
        verdict="not scored",
        score=None,
        directory=plan.directory,
        regions=len(found.areas),
        flagged_mm2=0.0,
        tissue_mm2=plan.tissue_mm2,
        tiles=len(found.plan.windows),
        unreadable=missing,
        warnings=tuple(warnings),
        reasons=(words,),
        nuclei=len(found.cells),
        abnormal_nuclei=int(found.cells.assessment.flagged.sum()),
    )


def _result_record(
    result: SlideResult, plan: SlidePlan, found: CellFindings, cells: dict[str, object]
) -> dict[str, object]:
    """The content of result.json; as of a slide that was scored, without what was not."""
    slide, windows = plan.slide, found.plan.windows.grid
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_USE,
        "slide_id": result.slide_id,
        "state": result.state,
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "score": None,
        "ruled_out": False,
        "novelty": None,
        "model": {"name": found.detector.name, "sha256": found.detector.identity},
        "scale": {
            "mpp_given": {"x": slide.mpp.x, "y": slide.mpp.y, "source": slide.mpp.source},
            "mpp_asked": windows.mpp,
            "tile_px": windows.tile_px,
            "tile_um": windows.tile_px * windows.mpp,
        },
        "tiles": {"planned": result.tiles, "unreadable": result.unreadable},
        "tissue_mm2": result.tissue_mm2,
        "flagged_mm2": result.flagged_mm2,
        "regions": [
            {"rank": rank, "name": area.name} for rank, area in enumerate(found.areas, start=1)
        ],
        "cells": cells,
        "slide": slide_facts(slide),
        "warnings": list(result.warnings),
    }


def _provenance(
    plan: SlidePlan, found: CellFindings, settings: Settings, detectors: tuple[str, ...]
) -> dict[str, object]:
    detector = found.detector
    return {
        "notice": RESEARCH_USE,
        "key": plan.key,
        "slide": slide_provenance(plan),
        "model": {"name": detector.name, "identity": detector.identity, "mpp": detector.mpp},
        "cells": found.provenance,
        "runtime": {"detected_by": list(detectors)},
        "parameters": settings.as_record(),
        "software": list_versions(),
    }
