"""The events of a run: one function to write each, so that none is misspelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .audit import AuditLog, read_audit
from .states import Ending, misunderstood

How = Literal["complete", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class RunStart:
    """What a run was asked, without any path or name of a slide."""

    run: str
    """Any name that no other run into the folder has."""
    version: str
    slides: int
    """Slides asked for in this run."""
    registered: int
    """Slides ever asked for: rows of the mapping file."""
    model: str
    """Identity of the model: its hash."""
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """What it took to end a slide, and what its result stands on."""

    seconds: float = 0.0
    """Of time passed, from its begin to its end."""
    tiles: int = 0
    """Planned."""
    unreadable: int = 0
    bytes: int = 0
    """Of the slide's files."""
    sha256: str | None = None
    """Of the slide's content."""
    manifest_sha256: str | None = None
    """Of its folder's manifest.json: with it the log vouches for every file of the result."""


def run_started(log: AuditLog, start: RunStart) -> None:
    """A run begins; on the disk when this returns."""
    log.append("run_started", durable=True, **asdict(start))


def slide_running(log: AuditLog, row: int, *, stored: int = 0) -> None:
    """Work on a slide begins, or goes on where a former run had stored so many tiles of it."""
    log.append("slide_running", row=row, stored=stored)


def slide_ended(log: AuditLog, ending: Ending, work: Work) -> None:
    """A slide has its result or its failure.

    The message must name no path and no patient: the log is not private.
    """
    log.append("slide_ended", **asdict(ending), **asdict(work))


def run_ended(log: AuditLog, run: str, how: How, counts: Mapping[str, int]) -> None:
    """A run is over; on the disk when this returns."""
    log.append("run_ended", durable=True, run=run, how=how, counts=dict(counts))


def read_work(record: Mapping[str, Any]) -> Work:
    """What an event `slide_ended` says of the work; raises `OutputError` for nonsense."""
    numbers: dict[str, Any] = {
        name: record.get(name, 0) for name in ("seconds", "tiles", "unreadable", "bytes")
    }
    for name, value in numbers.items():
        kinds = (int, float) if name == "seconds" else (int,)
        if type(value) not in kinds or value < 0:
            raise misunderstood(record, f"{name} is {value!r}")
    for name in ("sha256", "manifest_sha256"):
        value = record.get(name)
        numbers[name] = None if value is None else str(value)
    return Work(**numbers)


def count_registered(path: Path) -> int:
    """Slides ever asked for, by what the runs said when they began."""
    starts = (record for record in read_audit(path) if record["event"] == "run_started")
    return max((read_registered(record) for record in starts), default=0)


def read_registered(record: Mapping[str, Any]) -> int:
    """Slides ever asked for, by an event `run_started`; raises `OutputError` for nonsense."""
    value = record.get("registered", record.get("slides"))
    if type(value) is not int or value < 0:
        raise misunderstood(record, f"registered is {value!r}")
    return value
