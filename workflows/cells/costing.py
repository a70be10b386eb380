"""What looking at nuclei will take, before a run: how much is read at high power, and how long."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from slidetriage.models import Device
from slidetriage.tiling import TileBatch, Tiles
from slidetriage.workflows.cell_estimate import CellEstimate
from slidetriage.workflows.decoding import Decoder
from slidetriage.workflows.estimate import Machine
from slidetriage.workflows.identity import slide_id
from slidetriage.workflows.jobs import WINDOWS_AT_ONCE
from slidetriage.workflows.settings import CellSettings, Settings
from slidetriage.workflows.sources import SlideRequest, public_name
from slidetriage.workflows.steps import SlidePlan
from slidetriage.workflows.surveying import Survey, TilesWanted
from slidetriage.wsi import Slide

from .detecting import Sight, open_detector
from .locating import choose_areas, lay_windows, say_too_coarse
from .looking import look_through
from .parts import PARTS, iterate_parts
from .summaries import share_of_tissue

SAMPLE_WINDOWS = 4
"""Windows looked through to see how long one takes; nuclei are more or fewer elsewhere."""

CELL_BYTES = 960
"""Of one nucleus in its three files: a million took 956 MB (docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class _Pace:
    """What was measured on a few windows, on one thread."""

    window_s: float
    nuclei: float
    """In one window."""


class CellSurveyor:
    """Says of slides what their nuclei will take; slides alike in format go at one pace."""

    def __init__(
        self, settings: Settings, cells: CellSettings, machine: Machine, decoder: Decoder
    ) -> None:
        self._cells, self._machine, self._decoder = cells, machine, decoder
        self._settings = settings
        device = Device(
            settings.device, precision=settings.precision, threads=settings.threads, at_once=1
        )
        self._detector = open_detector(cells, device)
        self._sight = Sight.of(self._detector, cells)
        self._paces: dict[object, _Pace] = {}

    @property
    def needs(self) -> TilesWanted:
        """The squares of tissue that are surveyed where the model does not run."""
        return self._sight.needs

    def look(
        self, request: SlideRequest, slide: Slide, survey: Survey, kind: object
    ) -> CellEstimate:
        """What the slide's nuclei will take.

        Where the model has yet to flag regions it is the most that they can be: all of its tiles,
        with the margin. Raises `AreaError` where given regions cannot be used.

        Parameters
        ----------
        survey
            With the tiles of the model, or the squares of tissue (`needs`).
        kind
            What slides that are alike have in common.
        """
        flagged = self._cells.where == "regions"
        plan = self._plan(request, slide, survey)
        if say_too_coarse(plan, self._sight):
            return CellEstimate(0, self._sight.mpp, 0.0, 0.0, 0.0, 0, at_most=flagged)
        asked = replace(self._cells, where="tissue") if flagged else self._cells
        areas = choose_areas(plan, asked, regions=(), cropped=self._settings.crop_to_bounds)
        found = lay_windows(plan, areas, self._sight, self._cells)
        count = len(found.windows)
        pace = self._pace(plan, found.windows, kind) if count else _Pace(0.0, 0.0)
        return CellEstimate(
            windows=count,
            mpp=self._sight.mpp,
            looked_at_mm2=found.looked_at_mm2,
            tissue_share=share_of_tissue(found, plan),
            seconds=count * pace.window_s / self._at_once(count),
            result_bytes=round(count * pace.nuclei * CELL_BYTES),
            at_most=flagged,
        )

    def _plan(self, request: SlideRequest, slide: Slide, survey: Survey) -> SlidePlan:
        """The slide as a run plans it, so that given regions are found by its id as well."""
        by_id = self._cells.where == "given" and Path(self._cells.given).is_dir()
        digest = self._decoder.hash(slide) if by_id else ""
        name = slide_id(public_name(request, self._settings), digest)
        return SlidePlan(name, digest, "", "", slide, survey.tiles, survey.tissue_mm2, ())

    def _at_once(self, windows: int) -> int:
        """Windows that are looked at side by side."""
        machine, batches = self._machine, -(-windows // WINDOWS_AT_ONCE)
        return min(machine.workers * machine.encodings_at_once, machine.cores, batches)

    def _pace(self, plan: SlidePlan, windows: Tiles, kind: object) -> _Pace:
        """Of windows from the middle of the tissue; one more comes first, so that all is loaded."""
        if kind not in self._paces:
            first = max(0, (len(windows) - SAMPLE_WINDOWS) // 2)
            self._time(plan, windows[first : first + 1])
            self._paces[kind] = self._time(plan, windows[first : first + SAMPLE_WINDOWS])
        return self._paces[kind]

    def _time(self, plan: SlidePlan, windows: Tiles) -> _Pace:
        batch = TileBatch(plan.slide, windows, 0)
        with tempfile.TemporaryDirectory(prefix="slidetriage-plan-") as folder:
            staging = Path(folder)
            (staging / PARTS).mkdir()
            start = perf_counter()
            look_through(batch, self._decoder.read(batch, None), self._detector, staging)
            took = perf_counter() - start
            nuclei = sum(len(part.table) for part in iterate_parts(staging))
        return _Pace(took / len(windows), nuclei / len(windows))
