"""Lines of the audit log: written one way only, so that any change to one shows."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import orjson

from slidetriage.errors import OutputError

NO_LINE = "0" * 64
"""What stands for the hash of the line before the first."""

DAMAGED = "E_LEDGER"
"""Code of the error where a record of a run cannot be read."""

OWN = frozenset({"n", "time", "prev", "event", "check"})
"""Fields that every line has; an event cannot have its own by these names."""

# A terminal obeys some of these, and some readers of text end a line at others.
_CONTROLS = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def encode_line(record: dict[str, Any]) -> bytes:
    """The line of an event, without its end.

    Its field `check` holds digits of its own hash: the last line has no other to vouch for it.
    """
    return _encode(record | {"check": _check(record)})


def find_problem(line: bytes, number: int, before: str) -> str | None:
    """What is wrong with a line that should have this number and follow this hash, or None."""
    if not line.endswith(b"\n"):
        return "is torn: writing it was cut off, or the log was cut"
    try:
        record = orjson.loads(line)
        check = record.pop("check")
        intact = check == _check(record) and _encode(record | {"check": check}) == line[:-1]
    except (ValueError, TypeError, KeyError, AttributeError):
        return "is not as it was written"
    if not intact:
        return "is not as it was written"
    if record.get("n") != number:
        return (
            f"has the number {record.get('n')} where {number} is due: lines were moved, put in or "
            "taken out"
        )
    if record.get("prev") != before:
        return "does not follow from the line before it"
    return None


def digest(content: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


def damaged(path: Path, what: str) -> OutputError:
    """The error where a record of a run cannot be read."""
    return OutputError(
        f"{path}: {what}.",
        mend="Bring the file back from a copy; or move it away and run again, which finds "
        "finished slides by their folders.",
        code=DAMAGED,
    )


def _check(record: dict[str, Any]) -> str:
    return digest(_encode(record))[:16]


def _encode(record: dict[str, Any]) -> bytes:
    options = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    try:
        line = orjson.dumps(record, option=options)
    except TypeError:
        line = orjson.dumps(_as_text(record), option=options)
    if line.isascii() and b"\x7f" not in line:
        return line
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()


def _as_text(value: object) -> object:
    """The value with what JSON cannot hold, such as names that are no Unicode, written out."""
    if isinstance(value, dict):
        return {str(key): _as_text(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(inner) for inner in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()
