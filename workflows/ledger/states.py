"""What became of each slide, as the audit log tells it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from .audit import read_audit
from .audit_lines import damaged
from .places import AUDIT

EndState = Literal["DONE", "DONE_WITH_GAPS", "REJECTED", "FAILED"]

COUNTED: dict[str, str] = {
    "DONE": "done",
    "DONE_WITH_GAPS": "gaps",
    "REJECTED": "rejected",
    "FAILED": "failed",
    "PENDING": "pending",
}
"""What slides in each state are counted as; the counts add up to `planned`."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a slide ended."""

    row: int
    """Its number in the mapping file."""
    state: EndState
    code: str | None = None
    """Why, where it was not done."""
    message: str = ""
    retryable: bool = False
    """Whether trying again may end otherwise."""
    fingerprint: str | None = None
    """Hash of all that the ending depends on; with another the slide is pending again."""
    directory: str | None = None
    """Name of its folder within the output folder."""


@dataclass(frozen=True, slots=True)
class Running:
    """A slide was begun; once the run is gone, it is pending."""

    row: int


Known = Ending | Running


def replay(path: Path) -> dict[int, Known]:
    """The last known state of each row that the log tells of.

    Raises
    ------
    UsageError
        There is no log.
    OutputError
        A line of it cannot be understood (E_LEDGER).
    """
    states: dict[int, Known] = {}
    for record in read_audit(path):
        known = read_state(record)
        if known is not None:
            states[known.row] = known
    return states


def read_state(record: Mapping[str, Any]) -> Known | None:
    """The state that an event puts a slide into; None where it tells of something else.

    Raises `OutputError` (E_LEDGER) for an event of a slide that cannot be understood.
    """
    event = record.get("event")
    if event == "slide_running":
        return Running(read_count(record, "row"))
    if event != "slide_ended":
        return None
    state: Any = record.get("state")
    if state not in get_args(EndState):
        raise misunderstood(record, f"there is no state {state!r}")
    code, directory = record.get("code"), record.get("directory")
    fingerprint = record.get("fingerprint")
    return Ending(
        row=read_count(record, "row"),
        # A batch has few states and codes, and many slides.
        state=cast(EndState, sys.intern(state)),
        code=None if code is None else sys.intern(str(code)),
        message=str(record.get("message") or ""),
        retryable=record.get("retryable") is True,
        fingerprint=None if fingerprint is None else str(fingerprint),
        directory=None if directory is None else str(directory),
    )


def read_count(record: Mapping[str, Any], name: str) -> int:
    """A number from 0 that an event must have; raises `OutputError` (E_LEDGER) otherwise."""
    value = record.get(name)
    if type(value) is not int or value < 0:
        raise misunderstood(record, f"{name} is {value!r}")
    return value


def misunderstood(record: Mapping[str, Any], what: str) -> Exception:
    """The error for an event that makes no sense."""
    return damaged(Path(AUDIT), f"event {record.get('n')} cannot be understood: {what}")


def summarise(states: Mapping[int, Known], planned: int) -> dict[str, int]:
    """planned, done, gaps, rejected, failed, pending; the parts add up to planned.

    Parameters
    ----------
    states
        What is known of rows; a row that was begun and did not end is pending.
    planned
        Slides that were asked for; more where a state is known of more.
    """
    counts = dict.fromkeys(COUNTED.values(), 0)
    for known in states.values():
        if isinstance(known, Ending):
            counts[COUNTED[known.state]] += 1
    planned = max(planned, len(states))
    counts["pending"] = planned - sum(counts.values())
    return {"planned": planned, **counts}


def count_codes(states: Iterable[Known]) -> dict[str, int]:
    """How many slides were not done for which reason, the most frequent first."""
    counts: dict[str, int] = {}
    for known in states:
        if isinstance(known, Ending) and known.code is not None:
            counts[known.code] = counts.get(known.code, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
