"""The work of a run as values: steps that go to workers, receipts that come back.

No pixels and no features are among them: a step names what to read, a receipt says that it was
written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slidetriage.models.trust import Verdict
from slidetriage.tiling import TileBatch, Tiles
from slidetriage.wsi import Slide

from .sources import SlideRequest

State = Literal["DONE", "DONE_WITH_GAPS", "REJECTED", "FAILED"]


@dataclass(frozen=True, slots=True)
class PlanStep:
    """Open the slide, find its tissue, choose its tiles."""

    request: SlideRequest
    staging: Path
    """Folder of this slide's unfinished work; its picture is left there."""


@dataclass(frozen=True, slots=True)
class EncodeStep:
    """Read one batch of tiles and store their features."""

    slide_id: str
    batch: TileBatch
    staging: Path
    sha256: str
    """Of the slide's content when it was planned."""


@dataclass(frozen=True, slots=True)
class LocateStep:
    """Choose the windows in which nuclei will be looked for."""

    plan: SlidePlan
    staging: Path
    error: str
    """As in `FinishStep`."""


@dataclass(frozen=True, slots=True)
class CellStep:
    """Find and measure the nuclei in one batch of windows, and store them."""

    slide_id: str
    batch: TileBatch
    staging: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class FinishStep:
    """Turn a slide's features into its score and evidence, and publish them."""

    plan: SlidePlan
    staging: Path
    error: str
    """What an unreadable tile's error said; empty where all were read."""
    runtimes: tuple[str, ...] = ()
    """What computed the features; more than one where workers differ."""
    cells: CellPlan | None = None
    """Where nuclei were looked for; None where they were not."""
    detectors: tuple[str, ...] = ()
    """What found the nuclei."""


Step = PlanStep | EncodeStep | LocateStep | CellStep | FinishStep

STEP_NAMES = {
    PlanStep: "plan",
    EncodeStep: "encode",
    LocateStep: "locate",
    CellStep: "cells",
    FinishStep: "finish",
}
"""What a failure calls the step that it ended."""


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """One batch was read and its features, or its nuclei, stored."""

    slide_id: str
    tiles: int
    unreadable: int
    error: str
    runtime: str
    """What computed the features, such as "openvino float32"."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch that a run which was cut off had stored."""

    start: int
    """Index of its first tile, or window, among the slide's."""
    receipt: BatchReceipt


@dataclass(frozen=True, slots=True, eq=False)
class SlidePlan:
    """What will be done with one slide."""

    slide_id: str
    sha256: str
    key: str
    """Everything the result depends on, hashed (see `identity.result_key`)."""
    directory: str
    """Name of the slide's folder within the output folder."""
    slide: Slide
    tiles: Tiles
    tissue_mm2: float
    signatures: tuple[tuple[int, int, int, int], ...]
    """Of the slide's files when they were hashed (see `file_signatures`)."""
    stain: str | None = None
    """As the manifest says."""
    stored: tuple[StoredBatch, ...] = ()
    """Batches whose features are there already."""


@dataclass(frozen=True, slots=True, eq=False)
class CellPlan:
    """Where nuclei will be looked for on one slide."""

    slide_id: str
    windows: Tiles
    looked_at_mm2: float
    """Area of the regions with their margin, within the slide."""
    warnings: tuple[str, ...] = ()
    stored: tuple[StoredBatch, ...] = ()
    """Batches whose nuclei are there already."""


@dataclass(frozen=True, slots=True)
class SlideResult:
    """One slide was triaged and its folder published."""

    slide_id: str
    state: State
    verdict: Verdict | Literal["not scored"]
    """Not scored where only features were wanted."""
    score: float | None
    """Probability of the positive class, 0 to 1, calibrated; None where there is no tissue."""
    directory: str
    """Name of the slide's folder within the output folder."""
    regions: int
    flagged_mm2: float
    tissue_mm2: float
    tiles: int
    unreadable: int
    warnings: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    """Why a person must look, where the verdict is "needs eyes"."""
    ruled_out: bool = False
    """Whether it needs no look at the sensitivity that the model's rule-out keeps."""
    novelty: float | None = None
    """Distance from what the model learned from; None without tissue or reference."""
    nuclei: int | None = None
    """How many were found; None where they were not looked for."""
    abnormal_nuclei: int | None = None


@dataclass(frozen=True, slots=True)
class SlideFailure:
    """One slide could not be triaged; nothing of it was published."""

    step: str
    """Which step failed: plan, encode, locate, cells or finish."""
    code: str
    message: str
    rejected: bool
    """True where the slide itself is at fault, so that trying again is of no use."""


Receipt = SlidePlan | CellPlan | BatchReceipt | SlideResult | SlideFailure
