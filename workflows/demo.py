"""The demo: paint a slide whose tumour is known, triage it, and compare.

The truth is used for the comparison alone: the model, its thresholds and the run never see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson
from shapely import MultiPolygon, Polygon, union_all
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from slidetriage.wsi import PhantomSpec, PhantomTruth, open_reader, open_slide, paint_phantom

from .driver import Resources, TriageReport, Watcher, triage
from .steps import SlideResult

PHANTOM = "phantom.tif"
PICTURE = "demo.png"


@dataclass(frozen=True, slots=True, eq=False)
class DemoOutcome:
    """What the demo found and how it compares with what was planted."""

    report: TriageReport
    iou: float
    """Intersection over union of flagged and planted area, 0 to 1."""
    found: int
    """Planted tumour regions that the flagged area touches."""
    planted: int
    picture: Path

    def sentence(self) -> str:
        """The comparison in words."""
        return (
            f"Flagged against planted tumour: IoU {self.iou:.2f}; {self.found} of {self.planted} "
            f"planted regions found. See {self.picture}"
        )

    def record(self) -> dict[str, object]:
        """The comparison for programs."""
        return {
            "out": str(self.report.out),
            "summary": self.report.counts,
            "iou": self.iou,
            "found": self.found,
            "planted": self.planted,
            "picture": str(self.picture),
        }


def run_demo(
    out: Path, resources: Resources, watcher: Watcher, spec: PhantomSpec | None = None
) -> DemoOutcome:
    """Paint a phantom into `out`, triage it there, and compare the regions with the truth."""
    out.mkdir(parents=True, exist_ok=True)
    slide = out / PHANTOM
    truth = paint_phantom(slide, spec)
    report = triage(slide, out, resources=resources, watcher=watcher)
    (row,) = report.rows
    if not isinstance(row.outcome, SlideResult):
        raise RuntimeError(f"the demo slide was not triaged: {row.outcome.message}")
    flagged = read_regions(report.out / row.outcome.directory / "annotations.geojson")
    planted = list(truth.tumour.geoms)
    _draw(out / PICTURE, slide, truth, flagged)
    return DemoOutcome(
        report=report,
        iou=overlap(flagged, truth.tumour),
        found=sum(part.intersects(flagged) for part in planted),
        planted=len(planted),
        picture=out / PICTURE,
    )


def overlap(flagged: BaseGeometry, planted: BaseGeometry) -> float:
    """Intersection over union of two shapes; 1 where both are empty."""
    union = flagged.union(planted).area
    return float(flagged.intersection(planted).area / union) if union > 0 else 1.0


def read_regions(path: Path) -> BaseGeometry:
    """All regions of an annotations.geojson as one shape."""
    features = orjson.loads(path.read_bytes())["features"]
    return union_all([shape(feature["geometry"]) for feature in features])


def _draw(path: Path, slide: Path, truth: PhantomTruth, flagged: BaseGeometry) -> None:
    """The slide with what was planted and what was flagged, in mm."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    opened = open_slide(slide)
    reader = open_reader(opened)
    pixels = reader.read(opened.whole, 1200, round(1200 * opened.height_px / opened.width_px))
    reader.close()
    mm = truth.mpp / 1000
    figure = Figure(figsize=(10, 8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    extent = (0.0, opened.width_px * mm, opened.height_px * mm, 0.0)
    axes.imshow(pixels.rgb, extent=extent)
    for geometry, colour, style, label in (
        (truth.tumour, "#0a7d2c", "--", "planted"),
        (flagged, "#c80000", "-", "flagged"),
    ):
        for number, ring in enumerate(_rings(geometry)):
            x, y = ring
            name = label if number == 0 else None
            axes.plot(
                [v * mm for v in x], [v * mm for v in y], style, color=colour, lw=2, label=name
            )
    axes.set(
        xlabel="mm", ylabel="mm", title=f"Painted slide: IoU {overlap(flagged, truth.tumour):.2f}"
    )
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper right")
    figure.savefig(path, metadata={"Software": None})


def _rings(geometry: BaseGeometry) -> list[tuple[list[float], list[float]]]:
    parts = list(geometry.geoms) if isinstance(geometry, MultiPolygon) else [geometry]
    polygons = [part for part in parts if isinstance(part, Polygon) and not part.is_empty]
    rings = [ring for part in polygons for ring in (part.exterior, *part.interiors)]
    return [(list(ring.xy[0]), list(ring.xy[1])) for ring in rings]
