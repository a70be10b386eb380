"""A whole slide through the station of this process: planned, read by decoders, published."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bundles import make_bundle

from slidetriage.tiling import split_batches
from slidetriage.workflows import finishing
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.station import Station
from slidetriage.workflows.steps import (
    EncodeStep,
    FinishStep,
    PlanStep,
    SlideFailure,
    SlidePlan,
    SlideResult,
)

TILE_PX, MPP = 32, 4.0
MOST_BATCHES = 40
"""Of a slide that says it is huge, so many are read."""

MEMORY = Path("/dev/shm")
"""Where files cost no disk, if there is such a place."""

DRAWN_OF = 20
"""One picture of so many is drawn; the others are copies, because Matplotlib takes most time."""


@dataclass(frozen=True, slots=True)
class Work:
    """The folders of a worker; nothing may be written beside them."""

    root: Path
    out: Path
    staging: Path
    slides: Path
    temporary: Path
    current: Path


@contextmanager
def make_work() -> Iterator[Work]:
    """Folders of their own; temporary files go there as well, and relative paths lead there."""
    root = Path(tempfile.mkdtemp(prefix="torture-", dir=MEMORY if MEMORY.is_dir() else None))
    names = ("out", "staging", "canary-Jane-Doe-4711", "temporary", "current")
    work = Work(root, *(root / name for name in names))
    for name in names:
        (root / name).mkdir()
    before = os.getcwd(), os.environ.get("TMPDIR"), tempfile.tempdir
    try:
        os.chdir(work.current)
        os.environ["TMPDIR"] = tempfile.tempdir = str(work.temporary)
        yield work
    finally:
        os.chdir(before[0])
        tempfile.tempdir = before[2]
        os.environ.pop("TMPDIR")
        if before[1] is not None:
            os.environ["TMPDIR"] = before[1]
        shutil.rmtree(root, ignore_errors=True)


def tiny_model(folder: Path) -> Path:
    """A bundle whose network costs next to nothing, with random weights."""
    return make_bundle(folder, "test_resnet", mpp=MPP, tile_px=TILE_PX)


@contextmanager
def few_pictures() -> Iterator[None]:
    """Most overlays are copies of the first one drawn, and nothing is synced to the disk."""
    drawn, sync = finishing.draw_overlay, os.fsync
    copies: list[bytes] = []
    asked = 0

    def draw(path: Path, **arguments: Any) -> None:
        nonlocal asked
        asked += 1
        if copies and asked % DRAWN_OF:
            path.write_bytes(copies[0])
            return
        drawn(path, **arguments)
        copies[:] = [path.read_bytes()]

    finishing.draw_overlay = draw
    os.fsync = lambda _: None
    try:
        yield
    finally:
        finishing.draw_overlay, os.fsync = drawn, sync


def triage_slide(
    station: Station, request: SlideRequest, staging: Path, settings: Settings
) -> tuple[SlideResult | SlideFailure, int]:
    """All steps of one slide, one after the other; its outcome, and the pixels it says it has."""
    plan = station.perform(PlanStep(request, staging))
    if not isinstance(plan, SlidePlan):
        assert isinstance(plan, SlideResult | SlideFailure)
        return plan, 0
    pixels = plan.slide.width_px * plan.slide.height_px
    error = ""
    batches = split_batches(plan.slide, plan.tiles, settings.batch_tiles)
    for batch in islice(batches, MOST_BATCHES):
        receipt = station.perform(EncodeStep(plan.slide_id, batch, staging, plan.sha256))
        if isinstance(receipt, SlideFailure):
            return receipt, pixels
        error = getattr(receipt, "error", "") or error
    found = station.perform(FinishStep(plan, staging, error, ("torture",)))
    assert isinstance(found, SlideResult | SlideFailure)
    return found, pixels
