"""The slides of a run on their way: which step comes next, and what each slide came to."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from slidetriage.errors import OutputError
from slidetriage.tiling import TileBatch, split_batches

from .interrupts import check_interrupts
from .observers import Notes, Unwritten, Watcher
from .serial import Engine
from .settings import Settings
from .sources import SlideRequest, display_name
from .steps import (
    BatchReceipt,
    CellPlan,
    CellStep,
    EncodeStep,
    FinishStep,
    LocateStep,
    PlanStep,
    Receipt,
    SlideFailure,
    SlidePlan,
    SlideResult,
    Step,
    StoredBatch,
)
from .worklist import PENDING, Row

BEGUN_AT_LEAST = 2
"""Slides in work at a time at least: one is finished while the tiles of the next are read."""

WINDOWS_AT_ONCE = 16
"""Windows of a batch of nuclei: 12 MB of pixels."""

More = Callable[[bool], list[SlideRequest] | None]
"""Slides that came while the run lasts; None where none will come any more. Where all others are
done, which its argument says, it may wait a little for some."""


@dataclass(slots=True, eq=False)
class Job:
    """One slide on its way through the run."""

    request: SlideRequest
    staging: Path
    plan: SlidePlan | None = None
    cells: CellPlan | None = None
    begun: bool = False
    batches_left: int = 0
    stored: int = 0
    """Tiles and windows that a run which was cut off had read."""
    error: str = ""
    runtimes: set[str] = field(default_factory=set)
    detectors: set[str] = field(default_factory=set)
    outcome: SlideResult | SlideFailure | None = None
    twins: list[Job] = field(default_factory=list)
    """Later jobs with the same name and content; they share this one's outcome."""


class Run:
    """Decides which step comes next; does no work itself."""

    def __init__(
        self,
        requests: list[SlideRequest],
        staging: Path,
        watcher: Watcher,
        settings: Settings,
        notes: Notes | None = None,
        *,
        still_ours: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._staging = staging
        self._still_ours = still_ours
        self._notes = notes or Unwritten()
        self._jobs: list[Job] = []
        self._owner: dict[int, Job] = {}
        self._by_directory: dict[str, Job] = {}
        self._unplanned: deque[Job] = deque()
        self._planning = 0
        self._begun = 0
        self._ready: deque[tuple[Job, Step]] = deque()
        self._take_on(requests)

    def _take_on(self, requests: list[SlideRequest]) -> None:
        """Slides to be done after those that were asked for before.

        The most urgent first, and of these the largest: one that begins last keeps a single worker
        busy at the end.
        """
        first = len(self._jobs)
        # By its row, which is the same in every run: what one that was cut off had read is found.
        jobs = [
            Job(request, self._staging / f"{number if request.row is None else request.row:06d}")
            for number, request in enumerate(requests, start=first)
        ]
        self._jobs.extend(jobs)
        jobs.sort(key=lambda job: (-job.request.priority, -file_size(job.request.path)))
        self._unplanned.extend(jobs)

    def rows(self) -> list[Row]:
        """A row for every slide given, also for those that the run never reached."""
        return [Row(job.request, job.outcome or PENDING) for job in self._jobs]

    def drive(self, engine: Engine, more: More | None = None) -> None:
        """Keep the engine's slots full until every slide has its outcome, and no more come."""
        self._watcher.started(len(self._jobs))
        in_flight = 0
        while True:
            check_interrupts()
            self._still_ours()
            if more is not None:
                came = more(in_flight == 0 and not self._unplanned)
                if came is None:
                    more = None
                elif came:
                    self._take_on(came)
                    self._watcher.started(len(self._jobs))
            while in_flight < engine.slots and (step := self._next_step(engine.slots)) is not None:
                engine.submit(step)
                in_flight += 1
            if in_flight == 0:
                if more is None:
                    return
                continue
            step, receipt = engine.next_done()
            in_flight -= 1
            self._planning -= isinstance(step, PlanStep)
            self._take(self._owner.pop(id(step)), receipt)

    def _next_step(self, slots: int) -> Step | None:
        """What is ready, but the next slide is opened before the work on the last runs out.

        No more slides are in work at a time than it takes to keep the engine busy: each would be
        begun again if this process were killed.
        """
        if self._unplanned and not self._planning and len(self._ready) <= slots:
            return self._plan_next()
        while self._ready:
            job, step = self._ready[0]
            if job.outcome is None and not job.begun:
                enough = self._begun >= max(BEGUN_AT_LEAST, slots // 2)
                if enough and isinstance(step, EncodeStep | LocateStep):
                    return None
                job.begun = True
                self._begun += 1
                self._notes.begins(job.request, stored=job.stored)
            self._ready.popleft()
            if job.outcome is None:
                return self._owned(job, step)
        return self._plan_next() if self._unplanned else None

    def _plan_next(self) -> Step:
        job = self._unplanned.popleft()
        self._planning += 1
        self._notes.opens(job.request)
        return self._owned(job, PlanStep(job.request, job.staging))

    def _owned(self, job: Job, step: Step) -> Step:
        self._owner[id(step)] = job
        return step

    def _take(self, job: Job, receipt: Receipt) -> None:
        if job.outcome is not None:
            return  # the slide failed while this batch was under way
        if isinstance(receipt, SlidePlan):
            self._take_plan(job, receipt)
        elif isinstance(receipt, CellPlan):
            self._take_windows(job, receipt)
        elif isinstance(receipt, BatchReceipt):
            job.batches_left -= 1
            self._take_batch(job, receipt)
            self._finish_if_read(job)
        else:
            self._end(job, receipt)

    def _not_stored(
        self, job: Job, batches: list[TileBatch], stored: tuple[StoredBatch, ...]
    ) -> list[TileBatch]:
        """The batches that are left to do; the others count as done."""
        for each in stored:
            job.stored += each.receipt.tiles
            self._take_batch(job, each.receipt)
        known = {each.start for each in stored}
        batches = [batch for batch in batches if batch.start not in known]
        job.batches_left = len(batches)
        return batches

    def _take_batch(self, job: Job, receipt: BatchReceipt) -> None:
        # Not the last: receipts come in any order, and the message must not depend on it.
        job.error = min(filter(None, (job.error, receipt.error)), default="")
        (job.runtimes if job.cells is None else job.detectors).add(receipt.runtime)
        self._watcher.read(receipt)

    def _take_plan(self, job: Job, plan: SlidePlan) -> None:
        first = self._by_directory.setdefault(plan.directory, job)
        if first is not job:
            first.twins.append(job)
            if first.outcome is not None:
                self._end(job, first.outcome)
            return
        job.plan = plan
        scored = self._settings.scores_slides
        self._watcher.planned(plan if scored else replace(plan, tiles=plan.tiles[:0]))
        batches: list[TileBatch] = []
        if scored:
            batches = list(split_batches(plan.slide, plan.tiles, self._settings.batch_tiles))
        batches = self._not_stored(job, batches, plan.stored)
        self._ready.extend(
            (job, EncodeStep(plan.slide_id, batch, job.staging, plan.sha256)) for batch in batches
        )
        self._finish_if_read(job)

    def _take_windows(self, job: Job, cells: CellPlan) -> None:
        assert job.plan is not None
        job.cells = cells
        self._watcher.located(cells)
        batches = list(split_batches(job.plan.slide, cells.windows, WINDOWS_AT_ONCE))
        batches = self._not_stored(job, batches, cells.stored)
        # Before the tiles of other slides: a slide that is nearly done is to be finished.
        self._ready.extendleft(
            (job, CellStep(cells.slide_id, batch, job.staging, job.plan.sha256))
            for batch in reversed(batches)
        )
        self._finish_if_read(job)

    def _finish_if_read(self, job: Job) -> None:
        if job.plan is not None and job.batches_left == 0:
            self._ready.appendleft((job, self._last_step(job, job.plan)))

    def _last_step(self, job: Job, plan: SlidePlan) -> LocateStep | FinishStep:
        if self._settings.cells is not None and job.cells is None:
            return LocateStep(plan, job.staging, job.error)
        runtimes, detectors = tuple(sorted(job.runtimes)), tuple(sorted(job.detectors))
        return FinishStep(plan, job.staging, job.error, runtimes, job.cells, detectors)

    def _end(self, job: Job, outcome: SlideResult | SlideFailure) -> None:
        self._begun -= job.begun
        job.outcome = outcome = self._notes.ends(job.request, outcome, job.plan)
        job.plan = job.cells = None  # a batch of thousands must not hold the tiles of each
        shutil.rmtree(job.staging, ignore_errors=True)
        shown = replace(job.request, name=display_name(job.request, self._settings))
        self._watcher.ended(Row(shown, outcome))
        if isinstance(outcome, SlideFailure) and outcome.code == OutputError.code:
            raise OutputError(outcome.message, mend="Free space or mend the disk, then run again.")
        for twin in job.twins:
            if twin.outcome is None:
                self._end(twin, outcome)


def file_size(path: Path) -> int:
    """Bytes of the slide's own file, 0 where there is none: how long it will take, roughly."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
