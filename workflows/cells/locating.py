"""From regions to windows: where on a slide nuclei are looked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import shapely

from slidetriage.tiling import Tiles, grow_area, select_windows, window_grid
from slidetriage.workflows.jobs import WINDOWS_AT_ONCE
from slidetriage.workflows.results import Region
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import CellPlan, SlidePlan
from slidetriage.workflows.stored import StoredBatches, origin_of
from slidetriage.workflows.surveying import check_scale

from .areas import Area, read_given, unite
from .detecting import Sight
from .parts import AREAS_FILE, PARTS, digest_part


def locate_cells(
    plan: SlidePlan,
    staging: Path,
    sight: Sight,
    cells: CellSettings,
    *,
    regions: tuple[Region, ...] = (),
    cropped: bool = True,
) -> CellPlan:
    """Choose the windows over a slide's areas; leaves the areas in the staging folder.

    Parameters
    ----------
    regions
        What the model flagged, where it is asked for its regions.
    cropped
        As `Settings.crop_to_bounds`, for given regions.

    Raises
    ------
    AreaError
        The given regions cannot be used (E_REGIONS).
    ScaleError
        The slide is too coarse (E_MPP_TOO_COARSE), and nuclei are required.
    """
    said = say_too_coarse(plan, sight)
    if said and not cells.required:
        (staging / PARTS).mkdir(exist_ok=True)
        write_areas(staging, ())
        return CellPlan(plan.slide_id, _none(plan, sight), 0.0, (said,))
    check_scale(plan.slide, sight.needs)
    areas = choose_areas(plan, cells, regions=regions, cropped=cropped)
    located = lay_windows(plan, areas, sight, cells)
    stored = StoredBatches(staging / PARTS)
    origin = origin_of(plan.key, located.windows, WINDOWS_AT_ONCE)
    stored.keep(origin, (staging / PARTS).mkdir)
    write_areas(staging, areas)
    kept = stored.recall(plan.slide_id, lambda start, _: digest_part(staging, start))
    return replace(located, stored=kept)


def say_too_coarse(plan: SlidePlan, sight: Sight) -> str:
    """Why nuclei cannot be looked for; empty where the slide is fine enough."""
    coarsest, limit = max(plan.slide.mpp.x, plan.slide.mpp.y), sight.needs.mpp_range[1]
    if coarsest <= limit:
        return ""
    return (
        f"nuclei were not looked for: they need {sight.mpp:g} um/px, at most {limit:g}, and "
        f"the slide's finest level has {coarsest:g}"
    )


def lay_windows(
    plan: SlidePlan, areas: tuple[Area, ...], sight: Sight, cells: CellSettings
) -> CellPlan:
    """The windows over areas and their margin."""
    grid = window_grid(
        plan.slide, window_px=sight.window_px, margin_px=sight.margin_px, mpp=sight.mpp
    )
    margin_um = 0.0 if cells.where == "tissue" else cells.margin_um
    whole = grow_area(unite(areas), plan.slide, margin_um)
    mm2_per_px = plan.slide.mpp.x * plan.slide.mpp.y / 1e6
    return CellPlan(plan.slide_id, select_windows(grid, whole), whole.area * mm2_per_px)


def choose_areas(
    plan: SlidePlan, cells: CellSettings, *, regions: tuple[Region, ...], cropped: bool
) -> tuple[Area, ...]:
    """The areas that the settings ask for, without their margin."""
    if cells.where == "given":
        return read_given(cells.given, plan, cropped=cropped)
    if cells.where == "tissue":
        boxes = plan.tiles.boxes
        corners = boxes[:, :2] + boxes[:, 2:]
        tissue = shapely.union_all(shapely.box(*boxes[:, :2].T, *corners.T))
        frame = plan.slide.bounds
        edge = shapely.box(frame.x, frame.y, frame.x + frame.width, frame.y + frame.height)
        return (Area("tissue", shapely.intersection(tissue, edge)),) if len(boxes) else ()
    return tuple(Area(f"region {rank}", r.shape) for rank, r in enumerate(regions, start=1))


def write_areas(staging: Path, areas: tuple[Area, ...]) -> None:
    """Keep the areas for the end."""
    record = [{"name": a.name, "wkb": shapely.to_wkb(a.shape, hex=True)} for a in areas]
    (staging / PARTS / AREAS_FILE).write_bytes(orjson.dumps(record))


def read_areas(staging: Path) -> tuple[Area, ...]:
    """The areas that were kept."""
    record = orjson.loads((staging / PARTS / AREAS_FILE).read_bytes())
    return tuple(Area(each["name"], shapely.from_wkb(each["wkb"])) for each in record)


def _none(plan: SlidePlan, sight: Sight) -> Tiles:
    grid = window_grid(
        plan.slide, window_px=sight.window_px, margin_px=sight.margin_px, mpp=sight.mpp
    )
    return select_windows(grid, shapely.Polygon())
