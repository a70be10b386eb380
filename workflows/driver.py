"""The run: slides in, steps to the engine, receipts back, one row in the worklist for each."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from slidetriage.errors import OutputError, UsageError
from slidetriage.models import load_bundle
from slidetriage.tiling import check_masker, split_batches

from .publishing import claim_output
from .serial import Engine, SerialEngine
from .settings import Settings
from .sources import SlideRequest, find_requests
from .steps import (
    BatchReceipt,
    EncodeStep,
    FinishStep,
    PlanStep,
    Receipt,
    SlideFailure,
    SlidePlan,
    SlideResult,
    Step,
)
from .worklist import Row, count, rank_rows, write_worklist

EngineName = Literal["serial", "dask"]


@dataclass(frozen=True, slots=True)
class Resources:
    """Where a run computes; it never changes what comes out."""

    engine: EngineName = "dask"
    """`dask` spreads the work over processes, `serial` does it here, one step after the other."""
    workers: int | None = None
    """Processes on this machine; one for each core if not given."""
    scheduler: str | None = None
    """Address of a running Dask scheduler to use instead, such as `tls://host:8786`."""

    def __post_init__(self) -> None:
        if self.engine not in ("serial", "dask"):
            raise UsageError(f"There is no engine {self.engine!r}.", mend="Choose serial or dask.")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.workers} workers can do nothing; give at least 1.")


class Watcher(Protocol):
    """Is told how a run goes, to show it."""

    def started(self, slides: int) -> None:
        """A run over so many slides begins."""
        ...

    def planned(self, plan: SlidePlan) -> None:
        """A slide was opened and its tiles are known."""
        ...

    def read(self, receipt: BatchReceipt) -> None:
        """A batch of tiles was read and encoded."""
        ...

    def ended(self, row: Row) -> None:
        """A slide has its result or its failure."""
        ...


@dataclass(frozen=True, slots=True)
class TriageReport:
    """What became of every slide of a run, in the order of the worklist."""

    out: Path
    rows: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, int]:
        """planned, done, gaps, rejected, failed, pending; the parts add up to planned."""
        return count(self.rows)

    @property
    def complete(self) -> bool:
        """Whether every slide was done."""
        counts = self.counts
        return counts["done"] + counts["gaps"] == counts["planned"]


def triage(
    slides: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    settings: Settings | None = None,
    mpp: float | None = None,
    resources: Resources | None = None,
    watcher: Watcher | None = None,
) -> TriageReport:
    """Triage slides and publish a folder for each, with a worklist beside them.

    Parameters
    ----------
    slides
        Files, folders, globs or CSV manifests.
    out
        Folder for the results; made if missing, and owned by this run while it lasts.
    settings
        What is computed; the shipped bundle with its defaults if not given.
    mpp
        um/px stated for slides whose file does not say.
    resources
        Where it is computed; Dask workers on this machine if not given.
    watcher
        Is told how it goes.

    Raises
    ------
    UsageError, ModelError
        What was asked for makes no sense; nothing was run.
    OutputError
        Results cannot be written; slides that were finished stay.
    """
    settings = settings or Settings()
    sources = [slides] if isinstance(slides, str | Path) else list(slides)
    requests = find_requests(sources, mpp=mpp)
    check_masker(settings.masker)
    load_bundle(settings.model)  # a model that cannot be loaded is said before anything starts
    folder = Path(out).absolute()
    with claim_output(folder) as staging:
        run = _Run(requests, staging, watcher or _Silent(), settings)
        try:
            with _engine(resources or Resources(), settings, folder) as engine:
                run.drive(engine)
        finally:
            rows = tuple(rank_rows(run.rows()))
            write_worklist(folder, rows)
    return TriageReport(folder, rows)


@dataclass(slots=True, eq=False)
class _Job:
    """One slide on its way through the run."""

    request: SlideRequest
    staging: Path
    plan: SlidePlan | None = None
    batches_left: int = 0
    error: str = ""
    outcome: SlideResult | SlideFailure | None = None
    twins: list[_Job] = field(default_factory=list)
    """Later jobs with the same name and content; they share this one's outcome."""


class _Run:
    """Decides which step comes next; does no work itself."""

    def __init__(
        self, requests: list[SlideRequest], staging: Path, watcher: Watcher, settings: Settings
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._jobs = [
            _Job(request, staging / f"{number:06d}") for number, request in enumerate(requests)
        ]
        self._owner: dict[int, _Job] = {}
        self._by_directory: dict[str, _Job] = {}
        self._planned: deque[_Job] = deque(self._jobs)
        self._ready: deque[tuple[_Job, Step]] = deque()

    def rows(self) -> list[Row]:
        """A row for every slide given; one that the run never reached is a failure to try again."""
        pending = SlideFailure("plan", "E_PENDING", "The run ended before this slide.", False)
        return [Row(job.request, job.outcome or pending) for job in self._jobs]

    def drive(self, engine: Engine) -> None:
        """Keep the engine's slots full until every slide has its outcome."""
        self._watcher.started(len(self._jobs))
        in_flight = 0
        while True:
            while in_flight < engine.slots and (step := self._next_step()) is not None:
                engine.submit(step)
                in_flight += 1
            if in_flight == 0:
                return
            step, receipt = engine.next_done()
            in_flight -= 1
            self._take(self._owner.pop(id(step)), receipt)

    def _next_step(self) -> Step | None:
        """Batches and finishes of slides that are open come before opening another."""
        while self._ready:
            job, step = self._ready.popleft()
            if job.outcome is None:
                return self._owned(job, step)
        if self._planned:
            job = self._planned.popleft()
            return self._owned(job, PlanStep(job.request, job.staging))
        return None

    def _owned(self, job: _Job, step: Step) -> Step:
        self._owner[id(step)] = job
        return step

    def _take(self, job: _Job, receipt: Receipt) -> None:
        if job.outcome is not None:
            return  # the slide failed while this batch was under way
        if isinstance(receipt, SlidePlan):
            self._take_plan(job, receipt)
        elif isinstance(receipt, BatchReceipt):
            job.batches_left -= 1
            job.error = receipt.error or job.error
            self._watcher.read(receipt)
            self._finish_if_read(job)
        else:
            self._end(job, receipt)

    def _take_plan(self, job: _Job, plan: SlidePlan) -> None:
        first = self._by_directory.setdefault(plan.directory, job)
        if first is not job:
            first.twins.append(job)
            if first.outcome is not None:
                self._end(job, first.outcome)
            return
        job.plan = plan
        self._watcher.planned(plan)
        batches = list(split_batches(plan.slide, plan.tiles, self._settings.batch_tiles))
        job.batches_left = len(batches)
        self._ready.extend(
            (job, EncodeStep(plan.slide_id, batch, job.staging)) for batch in batches
        )
        self._finish_if_read(job)

    def _finish_if_read(self, job: _Job) -> None:
        if job.plan is not None and job.batches_left == 0:
            self._ready.appendleft((job, FinishStep(job.plan, job.staging, job.error)))

    def _end(self, job: _Job, outcome: SlideResult | SlideFailure) -> None:
        job.outcome = outcome
        shutil.rmtree(job.staging, ignore_errors=True)
        self._watcher.ended(Row(job.request, outcome))
        if isinstance(outcome, SlideFailure) and outcome.code == OutputError.code:
            raise OutputError(outcome.message, mend="Free space or mend the disk, then run again.")
        for twin in job.twins:
            if twin.outcome is None:
                self._end(twin, outcome)


@contextmanager
def _engine(resources: Resources, settings: Settings, out: Path) -> Iterator[Engine]:
    engine: Engine
    if resources.engine == "serial":
        engine = SerialEngine(settings, out)
    else:
        from .distribution import DaskEngine

        engine = DaskEngine(settings, out, workers=resources.workers, address=resources.scheduler)
    try:
        yield engine
    finally:
        engine.close()


class _Silent:
    """Shows nothing."""

    def started(self, slides: int) -> None:
        """Do nothing."""

    def planned(self, plan: SlidePlan) -> None:
        """Do nothing."""

    def read(self, receipt: BatchReceipt) -> None:
        """Do nothing."""

    def ended(self, row: Row) -> None:
        """Do nothing."""


_proof: type[Watcher] = _Silent
