"""What a run was asked, kept beside the mapping file: `resume` and `retry` ask it again."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from slidetriage.errors import OutputError, UsageError

from .ledger.places import PRIVATE, RUN
from .resources import Resources
from .settings import Settings

_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class Asked:
    """How slides are to be triaged, and where that is computed."""

    settings: Settings
    resources: Resources


def remember(out: Path, asked: Asked) -> None:
    """Write it down for the owner's eyes only."""
    path = out / RUN / PRIVATE / _FILE
    temporary = path.with_suffix(".tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(orjson.dumps(asdict(asked), option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}).", mend="Check the disk and its rights."
        ) from error


def recall(out: Path) -> Asked:
    """What the last run into a folder was asked; raises `UsageError` where none can be told."""
    path = out / RUN / PRIVATE / _FILE
    try:
        record = orjson.loads(path.read_bytes())
        return Asked(Settings.from_record(record["settings"]), Resources(**record["resources"]))
    except FileNotFoundError as error:
        raise UsageError(
            f"{out}: no run has begun here.",
            mend="Name the folder that a run was given with --out, or begin one with `run`.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: what the last run was asked cannot be read ({error}).",
            mend="Give `run` the slides again, with the same --out; finished ones are kept.",
        ) from error
