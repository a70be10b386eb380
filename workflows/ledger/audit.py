"""The audit log: one line for every change of state, each holding the hash of the line before.

A line that is changed, taken out, put in or moved breaks the chain; that lines are missing at the
end shows when the chain is held against a hash that was noted elsewhere, such as in a report.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from slidetriage.errors import OutputError, UsageError
from slidetriage.workflows.crash_points import crash_point

from .appending import append, last_line, open_to_append, read_at
from .audit_lines import NO_LINE, OWN, damaged, digest, encode_line, find_problem

_LONGEST = 1 << 24
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What became of checking a log."""

    events: int
    """Lines that are sound, from the first."""
    head: str
    """sha256 of the last of them."""
    problem: str | None
    """The first line that is not, and what is wrong with it."""


class AuditLog:
    """Appends events; several threads may, several processes must not."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()
        end, line = last_line(descriptor, _has_number)
        self._next = orjson.loads(line)["n"] + 1 if line else 0
        self._head = digest(line) if line else NO_LINE
        self._set_aside(end)

    @classmethod
    def open(cls, path: Path) -> AuditLog:
        """Begin a log or take one up; use it in a `with` statement, or close it.

        What a power cut left of a line is moved to `audit.torn-<n>` beside it, and the event
        `torn` says so.

        Raises
        ------
        OutputError
            The log cannot be written, or is no plain file.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        descriptor = open_to_append(path, mode=0o644)
        try:
            return cls(path, descriptor)
        except OSError as error:
            os.close(descriptor)
            raise error if isinstance(error, OutputError) else _unwritable(path, error) from error

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def head(self) -> str:
        """sha256 of the last line; whoever notes it elsewhere can tell if lines are cut off."""
        with self._lock:
            return self._head

    def append(self, event: str, *, durable: bool = False, **fields: object) -> None:
        """Write one event.

        Parameters
        ----------
        event
            What happened.
        durable
            Whether it must be on the disk when this returns, rather than with the system.
        **fields
            What there is to say of it; text may hold anything.

        Raises
        ------
        OutputError
            It cannot be written; the log is then as it was before.
        """
        if taken := OWN & fields.keys():
            raise UsageError(f"An event cannot have fields of its own called {sorted(taken)}.")
        with self._lock:
            record = {
                **fields,
                "n": self._next,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
                "prev": self._head,
                "event": event,
            }
            line = encode_line(record)
            try:
                append(self._descriptor, line + b"\n")
                crash_point("audit.written")
                self._next += 1
                self._head = digest(line)
                if durable:
                    os.fsync(self._descriptor)
                    crash_point("audit.synced")
            except OSError as error:
                raise _unwritable(self._path, error) from error

    def close(self) -> None:
        """Bring everything to the disk; a second call does nothing."""
        with self._lock:
            if self._descriptor < 0:
                return
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise _unwritable(self._path, error) from error
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def _set_aside(self, end: int) -> None:
        """Move what lies behind the last readable line away, and say so."""
        aside = _torn_path(self._path, self._next)
        length = os.fstat(self._descriptor).st_size - end
        if length > 0:
            torn = read_at(self._descriptor, end, length)
            # The name has this number until the event is written: a crash in between is caught up.
            aside.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            copy = os.open(aside, flags, 0o644)
            try:
                append(copy, torn)
                os.fsync(copy)
            finally:
                os.close(copy)
            os.ftruncate(self._descriptor, end)
        if aside.is_file():
            torn = aside.read_bytes()
            self.append("torn", durable=True, sha256=digest(torn), length=len(torn))


def read_audit(path: Path) -> Iterator[dict[str, Any]]:
    """The events in their order; the chain is not checked, and a torn last line left out.

    Raises
    ------
    UsageError
        There is no log.
    OutputError
        A line cannot be read (E_LEDGER).
    """
    for number, line in _lines(path):
        if not line.endswith(b"\n"):
            return
        try:
            record = orjson.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("event"), str):
            raise damaged(path, f"line {number} cannot be read")
        yield record


def verify_audit(path: Path, *, head: str | None = None) -> AuditCheck:
    """Follow the chain from the first line to the last.

    Parameters
    ----------
    head
        Hash that was noted when the log was written, such as in a report: the line it stands for
        must still be there.

    Raises
    ------
    UsageError
        There is no log, or `head` is no sha256.
    """
    wanted = None if head is None else head.strip().lower()
    if wanted is not None and not _HASH.fullmatch(wanted):
        raise UsageError(f"{head!r} is no sha256.", mend="It has 64 hexadecimal digits.")
    found = wanted in (None, NO_LINE)
    events, last = 0, NO_LINE
    for number, line in _lines(path):
        problem = find_problem(line, events, last) or _find_missing_aside(path, line, events)
        if problem is not None:
            return AuditCheck(events, last, f"Line {number} {problem}.")
        events, last = events + 1, digest(line[:-1])
        found = found or last == wanted
    if not found:
        lost = f"No line has the hash {wanted}: the log was cut off before it, or written anew."
        return AuditCheck(events, last, lost)
    return AuditCheck(events, last, None)


def _find_missing_aside(path: Path, line: bytes, number: int) -> str | None:
    """What is wrong with what was set aside, where this sound line tells of such; or None."""
    record = orjson.loads(line)
    if record.get("event") != "torn":
        return None
    aside = _torn_path(path, number)
    if aside.is_file() and digest(aside.read_bytes()) == record.get("sha256"):
        return None
    return f"tells of a torn line, but {aside.name} is missing or changed"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1; one too long for any event comes in pieces."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(
            f"{path}: there is no audit log to read ({error.strerror}).",
            mend="Name the folder that a run was given with --out.",
        ) from error
    with file:
        number = 0
        while line := file.readline(_LONGEST):
            number += 1
            yield number, line


def _has_number(line: bytes) -> bool:
    try:
        record = orjson.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and type(record.get("n")) is int


def _torn_path(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.torn-{number}")


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: the audit log cannot be written ({error.strerror}).",
        mend="Check the disk and its rights, then run again.",
    )
