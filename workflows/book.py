"""What a run knows of its slides: which were asked for, what became of each, now and before.

The registry knows every slide ever asked for in an output folder; the audit log every change of
its state. Together they are the memory of a batch: whatever happened to the processes, the next
run goes on from here.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

from slidetriage import __version__

from .fingerprints import fingerprint
from .ledger import (
    AuditLog,
    Ending,
    Registry,
    RunStart,
    Work,
    replay,
    run_ended,
    run_started,
    slide_ended,
    slide_running,
)
from .ledger.events import How
from .ledger.places import AUDIT, RUN
from .ledger.states import Known
from .manifest import MANIFEST, verified_key
from .privacy import Redactor, on_one_line
from .records import read_result
from .settings import Settings
from .sources import SlideRequest, display_name
from .steps import SlideFailure, SlidePlan, SlideResult
from .worklist import PENDING, Row, count

Outcome = SlideResult | SlideFailure


class Book:
    """Takes down what becomes of slides while a run lasts; made by `open_book`."""

    def __init__(
        self, out: Path, registry: Registry, log: AuditLog, model: str, settings: Settings
    ) -> None:
        self._out = out
        self._registry = registry
        self._log = log
        self._model = model
        self._settings = settings
        self._known: dict[int, Known] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._begun: dict[int, float] = {}
        self.run = uuid.uuid4().hex[:12]

    def recall(self) -> None:
        """Take up what former runs left."""
        self._known = replay(self._out / RUN / AUDIT)

    @property
    def requests(self) -> list[SlideRequest]:
        """Every slide ever asked for, by row."""
        return self._registry.requests

    def enter(self, requests: Iterable[SlideRequest]) -> list[SlideRequest]:
        """Give each slide its row; on the disk when this returns."""
        entered = [replace(request, row=self._registry.add(request)) for request in requests]
        if entered:
            self._registry.sync()
        return entered

    def forget(self, codes: Collection[str]) -> int:
        """Let slides that ended with one of these codes be done again; how many there are."""
        chosen = [
            row
            for row, known in self._known.items()
            if isinstance(known, Ending) and known.code in codes
        ]
        for row in chosen:
            del self._known[row]
        return len(chosen)

    def begin(self, slides: int) -> None:
        """The run begins."""
        run_started(
            self._log,
            RunStart(
                run=self.run,
                version=__version__,
                slides=slides,
                registered=len(self._registry),
                model=self._model,
                settings=self._settings.as_record(),
            ),
        )

    def keep(self, request: SlideRequest) -> Outcome | None:
        """What a former run found, where it still stands; None where the slide must be done.

        A result stands while its files verify, a rejection while nothing that it depends on has
        changed. A failure never does.
        """
        known = self._known.get(_row(request))
        if not isinstance(known, Ending) or known.state == "FAILED":
            return None
        now = fingerprint(request, self._model, self._settings)
        if now is None or known.fingerprint != now:
            return None
        outcome = self._recalled(known)
        if outcome is not None:
            self._outcomes[known.row] = outcome
        return outcome

    def opens(self, request: SlideRequest) -> None:
        """A slide is looked at, ahead of time; what was known of it before holds no more."""
        self._begun[_row(request)] = monotonic()

    def begins(self, request: SlideRequest, *, stored: int) -> None:
        """Its tiles are read from now on; a slide of which the log says no more is gone on with."""
        slide_running(self._log, _row(request), stored=stored)

    def ends(self, request: SlideRequest, outcome: Outcome, plan: SlidePlan | None) -> Outcome:
        """A slide has its outcome; it is returned as it may be shown."""
        row = _row(request)
        outcome = self._without_names(request, outcome)
        self._outcomes[row] = outcome
        now = fingerprint(request, self._model, self._settings)
        if isinstance(outcome, SlideResult):
            ending = Ending(row, outcome.state, fingerprint=now, directory=outcome.directory)
        else:
            ending = Ending(
                row,
                "REJECTED" if outcome.rejected else "FAILED",
                outcome.code,
                outcome.message,
                retryable=not outcome.rejected,
                fingerprint=now,
            )
        slide_ended(self._log, ending, self._work(row, outcome, plan))
        return outcome

    def rows(self) -> list[Row]:
        """A row for every slide ever asked for."""
        return [Row(self.shown(request), self._outcome(request)) for request in self.requests]

    def shown(self, request: SlideRequest) -> SlideRequest:
        """The slide by the name that may be told."""
        return replace(request, name=display_name(request, self._settings))

    def end(self, how: How, rows: Sequence[Row]) -> None:
        """The run is over."""
        run_ended(self._log, self.run, how, count(rows))

    def _outcome(self, request: SlideRequest) -> Outcome:
        row = _row(request)
        found = self._outcomes.get(row)
        if found is None:
            known = self._known.get(row)
            # Of a slide that was begun in this run nothing that was known before holds.
            if isinstance(known, Ending) and row not in self._begun:
                found = self._recalled(known)
        return found or PENDING

    def _recalled(self, known: Ending) -> Outcome | None:
        """The outcome that the log tells of; None where its result is gone or damaged."""
        if known.directory is None:
            return SlideFailure(
                "plan", known.code or "", known.message, rejected=known.state == "REJECTED"
            )
        folder = self._out / known.directory
        if verified_key(folder) is None:
            return None
        return read_result(folder)

    def _work(self, row: int, outcome: Outcome, plan: SlidePlan | None) -> Work:
        seconds = round(monotonic() - self._begun.get(row, monotonic()), 3)
        work = Work(
            seconds=seconds,
            bytes=sum(size for _, size, _, _ in plan.signatures) if plan else 0,
            sha256=plan.sha256 if plan else None,
        )
        if isinstance(outcome, SlideFailure):
            return work
        manifest = self._out / outcome.directory / MANIFEST
        return replace(
            work,
            tiles=outcome.tiles,
            unreadable=outcome.unreadable,
            manifest_sha256=hashlib.sha256(manifest.read_bytes()).hexdigest(),
        )

    def _without_names(self, request: SlideRequest, outcome: Outcome) -> Outcome:
        redactor = Redactor((request,), self._settings)

        def redact(text: str) -> str:
            return on_one_line(redactor.redact(text))

        if isinstance(outcome, SlideFailure):
            return replace(outcome, message=redact(outcome.message))
        return replace(outcome, warnings=tuple(redact(text) for text in outcome.warnings))


@contextmanager
def open_book(out: Path, model: str, settings: Settings) -> Iterator[Book]:
    """The book of an output folder that this run owns, with what former runs left in it."""
    folder = out / RUN
    folder.mkdir(exist_ok=True)
    with Registry.open(folder) as registry, AuditLog.open(folder / AUDIT) as log:
        book = Book(out, registry, log, model, settings)
        book.recall()
        yield book


def _row(request: SlideRequest) -> int:
    assert request.row is not None
    return request.row
