"""What a station does for nuclei: its detector, the windows, and what is found in them."""

from __future__ import annotations

import threading
from pathlib import Path

from slidetriage.models import Device
from slidetriage.models.nuclei import NucleusDetector
from slidetriage.tiling import TilePixels
from slidetriage.workflows.results import Region
from slidetriage.workflows.settings import CellSettings, Settings
from slidetriage.workflows.steps import BatchReceipt, CellPlan, CellStep, SlidePlan
from slidetriage.workflows.stored import StoredBatches

from .detecting import Sight, open_detector, what_computes
from .locating import locate_cells
from .looking import look_through
from .parts import PARTS, digest_part


class CellBench:
    """The detector of a station, loaded once, and its part in the steps of a slide."""

    def __init__(self, settings: Settings, cells: CellSettings, *, at_once: int) -> None:
        self._settings, self._cells, self._at_once = settings, cells, at_once
        self._detector: NucleusDetector | None = None
        self._loading = threading.Lock()

    @property
    def detector(self) -> NucleusDetector:
        """The detector, loaded when first needed."""
        with self._loading:
            if self._detector is None:
                import torch

                torch.set_num_threads(self._settings.threads)
                device = Device(
                    self._settings.device,
                    precision=self._settings.precision,
                    threads=self._settings.threads,
                    at_once=self._at_once,
                )
                self._detector = open_detector(self._cells, device)
            return self._detector

    @property
    def sight(self) -> Sight:
        """How the detector looks at slides."""
        return Sight.of(self.detector, self._cells)

    def what_computes(self, model: str) -> str:
        """Hash of everything beside the settings that results depend on."""
        return what_computes(self._settings, model)

    def locate(self, plan: SlidePlan, staging: Path, regions: tuple[Region, ...]) -> CellPlan:
        """Choose the windows (see `locate_cells`)."""
        return locate_cells(
            plan,
            staging,
            self.sight,
            self._cells,
            regions=regions,
            cropped=self._settings.crop_to_bounds,
        )

    def look(self, step: CellStep, pixels: TilePixels) -> BatchReceipt:
        """Find the nuclei of a batch of windows."""
        unreadable = look_through(step.batch, pixels, self.detector, step.staging)
        receipt = BatchReceipt(
            step.slide_id, len(step.batch.tiles), unreadable, pixels.error, self.detector.name
        )
        start = step.batch.start
        StoredBatches(step.staging / PARTS).note(start, receipt, digest_part(step.staging, start))
        return receipt
