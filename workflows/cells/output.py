"""The files of a slide's nuclei: GeoJSON for QuPath, a table, a label image, and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from slidetriage.models.nuclei import NucleusDetector
from slidetriage.tiling import grow_area
from slidetriage.workflows.geojson import GeoJsonFrame
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import CellPlan, SlidePlan, SlideResult

from .areas import Area, unite
from .cell_geojson import write_cell_geojson
from .cell_labels import write_cell_labels
from .cell_parquet import write_cell_parquet
from .gathering import GatheredCells, gather_cells
from .label_frame import LabelFrame
from .label_places import LabelPlace
from .locating import read_areas
from .summaries import describe_cells, summarise_cells

GEOJSON, TABLE = "cells.geojson.gz", "cells.parquet"

LABELS = "nuclei.zarr"
"""The label image where there is no heatmap for it to lie beside."""


@dataclass(frozen=True, slots=True, eq=False)
class CellFindings:
    """What is known of a slide's nuclei."""

    slide: SlidePlan
    plan: CellPlan
    areas: tuple[Area, ...]
    cells: GatheredCells
    detector: NucleusDetector

    @property
    def looked(self) -> bool:
        """Whether there was any place to look at."""
        return len(self.plan.windows) > 0

    @property
    def provenance(self) -> dict[str, object]:
        """What found them."""
        windows = self.plan.windows.grid
        return {
            "detector": self.detector.name,
            "identity": self.detector.identity,
            "mpp": self.detector.mpp,
            "window_px": windows.tile_px,
            "margin_px": (windows.tile_px - windows.stride_px) // 2,
        }


def find_cells(
    plan: SlidePlan,
    cells: CellPlan,
    staging: Path,
    *,
    settings: CellSettings,
    detector: NucleusDetector,
) -> CellFindings:
    """Bring together what was found in a slide's windows."""
    areas = read_areas(staging)
    margin_um = 0.0 if settings.where == "tissue" else settings.margin_um
    area = grow_area(unite(areas), plan.slide, margin_um)
    found = gather_cells(staging, area, plan.slide.mpp, classifier=settings.classifier)
    return CellFindings(plan, cells, areas, found, detector)


def add_cells(result: SlideResult, found: CellFindings) -> SlideResult:
    """The slide's result with what its nuclei say."""
    abnormal = int(found.cells.assessment.flagged.sum())
    warnings = [*result.warnings, *found.plan.warnings]
    missing = len(found.cells.missing)
    if missing:
        warnings.append(
            f"{missing} of {len(found.plan.windows)} windows for nuclei could not be read"
        )
    words = describe_cells(found.cells, found.plan, found.slide)
    return replace(
        result,
        state="DONE_WITH_GAPS" if missing else result.state,
        reasons=(*result.reasons, words) if abnormal else result.reasons,
        warnings=tuple(warnings),
        nuclei=len(found.cells),
        abnormal_nuclei=abnormal,
    )


def write_cells(
    content: Path,
    found: CellFindings,
    plan: SlidePlan,
    frame: GeoJsonFrame,
    *,
    provenance: Mapping[str, object],
    labels: LabelPlace,
) -> dict[str, object]:
    """Write the files of the nuclei to the slide's folder; what result.json says of them.

    Parameters
    ----------
    labels
        Where the label image is to lie.
    """
    slide, cells = plan.slide, found.cells
    if found.looked:
        write_cell_geojson(content / GEOJSON, cells.chunks(), frame)
        write_cell_parquet(content / TABLE, cells.chunks(), provenance=provenance)
        shape = LabelFrame(
            slide.width_px, slide.height_px, slide.mpp.x, slide.mpp.y, found.detector.mpp
        )
        write_cell_labels(labels, cells.chunks(), shape, provenance=provenance)
    summary = summarise_cells(cells, found.areas, found.plan, plan)
    return {**found.provenance, **summary, "warnings": list(found.plan.warnings)}
