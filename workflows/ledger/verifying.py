"""Checks of a whole output folder, byte by byte: what of it can still be relied on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from slidetriage.errors import OutputError
from slidetriage.workflows.publishing import STAGING

from .audit import read_audit, verify_audit
from .events import read_registered, read_work
from .folders import Finding, Told, check_folder
from .places import AUDIT, PRIVATE, RUN, SLIDES, audit_path, check_output, plain, slides_path
from .states import Ending, Known, read_state
from .worklists import check_worklist

__all__ = ["Finding", "verify_output"]

_RESUME = "Run `slidetriage resume`."


@dataclass(slots=True)
class _Record:
    """What the audit log says."""

    states: dict[int, Known] = field(default_factory=dict)
    results: dict[str, Told] = field(default_factory=dict)
    registered: int = 0


def verify_output(out: Path) -> Iterator[Finding]:
    """Everything that is wrong in an output folder, while it is found.

    Every file of every result is compared with its manifest, every chunk of every array is
    decoded, and manifest, result, heatmap, worklist and audit log are held against each other.

    Raises
    ------
    UsageError
        No run has written there.
    """
    check_output(out)
    return _verify(out)


def _verify(out: Path) -> Iterator[Finding]:
    record: _Record | None = None
    if audit_path(out).is_file():
        problem = verify_audit(audit_path(out)).problem
        try:
            record = _read_record(audit_path(out))
        except OutputError as error:
            problem = problem or error.what
        if problem is not None:
            mend = "Keep the file and find out who wrote to it; bring it back from a copy."
            yield Finding(RUN, AUDIT, problem, mend)
    yield from _check_folders(out, record)
    yield from _check_registered(out, record)
    states, registered = (None, None) if record is None else (record.states, record.registered)
    for file, what in check_worklist(out, states, registered):
        yield Finding("", file, what, f"{_RESUME} It writes the worklist anew.")
    staging = out / STAGING
    if staging.is_dir() and any(staging.iterdir()):
        what = "there is unfinished work: a run is under way, or was cut off"
        yield Finding(STAGING, "", what, f"Wait for the run, if there is one. {_RESUME}")


def _read_record(path: Path) -> _Record:
    record = _Record()
    for event in read_audit(path):
        if event["event"] == "run_started":
            record.registered = max(record.registered, read_registered(event))
        known = read_state(event)
        if known is None:
            continue
        record.states[known.row] = known
        if isinstance(known, Ending) and known.directory is not None:
            record.results[known.directory] = (known, read_work(event))
    return record


def _check_folders(out: Path, record: _Record | None) -> Iterator[Finding]:
    """Each result folder, and those that the audit log tells of and that are gone."""
    folders = sorted(
        path for path in out.iterdir()
        if path.name != RUN and not path.name.startswith(".") and path.is_dir()
    )  # fmt: skip
    for folder in folders:
        told = None if record is None else record.results.get(folder.name)
        yield from check_folder(folder, told)
        if record is not None and told is None:
            what = "the audit log tells of no such result"
            yield Finding(plain(folder.name), "", what, f"{_RESUME} It takes up what is sound.")
    if record is None:
        return
    there = {folder.name for folder in folders}
    last = {k.directory for k in record.states.values() if isinstance(k, Ending) and k.directory}
    for name in sorted(last - there):
        yield Finding(plain(name), "", "the folder is missing, and the slide was done", _RESUME)


def _check_registered(out: Path, record: _Record | None) -> Iterator[Finding]:
    """The mapping file against what the audit log says of it; only its owner can tell."""
    mend = "Bring the file back from a copy, or run again with the same slides."
    rows: set[object] = set()
    try:
        with slides_path(out).open("rb") as file:
            rows.update(orjson.loads(line)["row"] for line in file)
    except PermissionError:
        return
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        yield Finding(RUN, f"{PRIVATE}/{SLIDES}", "it cannot be read", mend)
        return
    if record is not None and len(rows) != record.registered:
        what = f"it tells of {len(rows)} slides, and the audit log of {record.registered}"
        yield Finding(RUN, f"{PRIVATE}/{SLIDES}", what, mend)
