"""What a report says of the runs into a folder, read from the audit log in one pass."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .audit import read_audit
from .events import Work, read_registered, read_work
from .states import Ending, Known, Running, count_codes, misunderstood, read_state, summarise

BINS = 60
"""Stretches of time that a run's throughput is shown in."""


@dataclass(slots=True)
class SlideFigures:
    """One slide: its state, and what it took."""

    known: Known
    work: Work = field(default_factory=Work)

    @property
    def state(self) -> str:
        """The state, PENDING where the slide was begun and did not end."""
        return self.known.state if isinstance(self.known, Ending) else "PENDING"

    @property
    def directory(self) -> str | None:
        """Name of its folder, where it has one that can be one."""
        name = self.known.directory if isinstance(self.known, Ending) else None
        return name if name and name != ".." and Path(name).name == name else None

    @property
    def name(self) -> str:
        """What it is called where no name may be told: its folder, or its row."""
        return self.directory or f"row {self.known.row}"

    def as_record(self) -> dict[str, object]:
        """Its line for programs."""
        work, ended = self.work, isinstance(self.known, Ending)
        return {
            "row": self.known.row,
            "slide": self.name,
            "state": self.state,
            "code": self.known.code if isinstance(self.known, Ending) else None,
            "seconds": work.seconds if ended else None,
            "tiles": work.tiles if ended else None,
            "unreadable": work.unreadable if ended else None,
            "tiles_per_s": work.tiles / work.seconds if ended and work.seconds else None,
            "bytes": work.bytes if ended else None,
        }


@dataclass(slots=True)
class RunFigures:
    """One run, from its begin to its last event."""

    run: str
    version: str
    began: float
    """Seconds since 1970, as all times here."""
    slides: int
    last: float
    how: str = "not ended"
    ended: int = 0
    """Slides that ended in it."""
    tiles: int = 0
    ends: array[float] = field(default_factory=lambda: array("d"))
    """For each slide that ended: when, the seconds it took, its tiles."""

    @property
    def seconds(self) -> float:
        """From its begin to its last event; a clock that was set back gives 0."""
        return max(0.0, self.last - self.began)

    @property
    def slides_per_h(self) -> float | None:
        """None where no time passed."""
        return self.ended * 3600 / self.seconds if self.seconds else None

    @property
    def tiles_per_s(self) -> float | None:
        """None where no time passed."""
        return self.tiles / self.seconds if self.seconds else None

    def throughput(self) -> list[float]:
        """Tiles per second in `BINS` equal stretches; a slide's tiles are spread over its time."""
        bins = [0.0] * BINS
        if not self.seconds:
            return bins
        width = self.seconds / BINS
        for end, took, tiles in zip(*(self.ends[at::3] for at in range(3)), strict=True):
            high = min(max(end - self.began, 0.0), self.seconds)
            low = max(0.0, high - took)
            first, last = (min(BINS - 1, int(at / width)) for at in (low, high))
            for at in range(first, last + 1):
                inside = min(high, (at + 1) * width) - max(low, at * width)
                bins[at] += tiles * (inside / (high - low) if high > low else 1.0)
        return [tiles / width for tiles in bins]


@dataclass(slots=True)
class Figures:
    """All slides and all runs."""

    slides: dict[int, SlideFigures] = field(default_factory=dict)
    runs: list[RunFigures] = field(default_factory=list)
    registered: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """planned, done, gaps, rejected, failed, pending; the parts add up to planned."""
        return summarise({row: each.known for row, each in self.slides.items()}, self.registered)

    @property
    def codes(self) -> dict[str, int]:
        """Slides not done by the reason, the most frequent first."""
        return count_codes(each.known for each in self.slides.values())


def read_figures(path: Path) -> Figures:
    """Read the audit log.

    Raises
    ------
    UsageError
        There is no log.
    OutputError
        A line of it cannot be understood (E_LEDGER).
    """
    figures = Figures()
    for record in read_audit(path):
        when = _read_time(record)
        if record["event"] == "run_started":
            figures.registered = max(figures.registered, read_registered(record))
            _begin(figures, record, when)
        known = read_state(record)
        if known is not None:
            _take(figures, known, record, when)
        if figures.runs:
            run = figures.runs[-1]
            run.last = max(run.last, when)
            if record["event"] == "run_ended":
                run.how = str(record.get("how"))
    return figures


def _begin(figures: Figures, record: Mapping[str, Any], when: float) -> None:
    if figures.runs:
        figures.runs[-1].ends = array("d")  # only that of the last run is shown
    slides = record.get("slides")
    figures.runs.append(
        RunFigures(
            run=str(record.get("run")),
            version=str(record.get("version")),
            began=when,
            slides=slides if isinstance(slides, int) else 0,
            last=when,
        )
    )


def _take(figures: Figures, known: Known, record: Mapping[str, Any], when: float) -> None:
    if isinstance(known, Running):
        figures.slides[known.row] = SlideFigures(known)
        return
    work = read_work(record)
    # Hashes and messages of many slides would take more memory than all else.
    work = replace(work, sha256=None, manifest_sha256=None)
    figures.slides[known.row] = SlideFigures(replace(known, message="", fingerprint=None), work)
    if figures.runs:
        run = figures.runs[-1]
        run.ended += 1
        if known.state in ("DONE", "DONE_WITH_GAPS") and work.seconds > 0:
            run.tiles += work.tiles
            run.ends.extend((when, work.seconds, work.tiles))


def _read_time(record: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(record.get("time"))).timestamp()
    except ValueError:
        raise misunderstood(record, f"its time is {record.get('time')!r}") from None
