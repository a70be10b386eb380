"""An engine that does no work, to see which steps a run asks for."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import numpy as np

from slidetriage.tiling import Tiles
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.steps import (
    BatchReceipt,
    FinishStep,
    PlanStep,
    Receipt,
    SlideFailure,
    SlidePlan,
    SlideResult,
    Step,
)


class Pretending:
    """An engine that does no work: batches by slide, and the order in which steps are done."""

    def __init__(self, batches: list[int], slots: int, order: list[int]) -> None:
        self.slots = slots
        self.order = deque(order)
        self.batches = batches
        self.taken: list[Step] = []
        self.most = 0

    def submit(self, step: Step) -> None:
        self.taken.append(step)
        self.most = max(self.most, len(self.taken))

    def next_done(self) -> tuple[Step, Receipt]:
        at = self.order[0] % len(self.taken)
        self.order.rotate(-1)
        step = self.taken.pop(at)
        return step, self.receipt(step)

    def receipt(self, step: Step) -> Receipt:
        if isinstance(step, PlanStep):
            return self.plan(step.request)
        if isinstance(step, FinishStep):
            name = step.plan.slide_id
            return SlideResult(name, "DONE", "clear", 0.1, name, 0, 0.0, 1.0, 1, 0, ())
        if step.slide_id.endswith("-bad"):
            return SlideFailure("encode", "E_TEST", "as wanted", rejected=True)
        return BatchReceipt(step.slide_id, len(step.batch.tiles), 0, "", "none")

    def plan(self, request: SlideRequest) -> SlidePlan:
        count = self.batches[int(request.name.split("-")[0])] * Settings().batch_tiles
        places = np.zeros(count, np.int32)
        tiles = Tiles(cast("Any", None), places, places, places.astype(np.float32))
        return SlidePlan(
            request.name, "", "", request.name, cast("Any", None), tiles, 1.0, ()
        )  # fmt: skip

    def close(self) -> None:
        """It has nothing."""
