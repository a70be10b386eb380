"""Results appear whole or not at all: staged beside the target, synced, moved by one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from slidetriage.errors import OutputError

from .crash_points import crash_point
from .lease import refuse_output, take_lease

STAGING = ".staging"
_LOCK = ".slidetriage.lock"


@dataclass(frozen=True, slots=True)
class Claim:
    """An output folder that this run owns."""

    staging: Path
    """On the same file system as the results, with what a run that was cut off had read; removed
    in the end, unless this one is cut off too."""
    check: Callable[[], None]
    """Raises `OutputError` (E_LOCKED) where another machine's run took this one for dead."""


@contextmanager
def claim_output(out: Path) -> Iterator[Claim]:
    """Own the output folder: create it, check that it can be written, keep other runs out.

    Raises `OutputError` (E_OUTPUT, or E_LOCKED where another run owns it).
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse_output(out, error) from error
    lease = take_lease(out / _LOCK)
    try:
        crash_point("claim.locked")
        staging = out / STAGING
        if staging.is_symlink() or not staging.is_dir():
            staging.unlink(missing_ok=True)
            staging.mkdir(mode=0o700)
        crash_point("claim.staged")
        useful = True
        try:
            yield Claim(staging, lease.check)
            useful = False
        except OutputError:
            useful = False  # the disk may be full
            raise
        finally:
            if not lease.lost and not useful:
                shutil.rmtree(staging, ignore_errors=True)
    finally:
        lease.close()


def publish(staged: Path, target: Path) -> None:
    """Move a finished folder to where it belongs; it is on the disk before it has its name.

    Raises `OutputError` where `target` exists or the disk refuses.
    """
    try:
        for folder, _, files in os.walk(staged, topdown=False):
            for name in files:
                _sync(Path(folder) / name)
            _sync(Path(folder))
        crash_point("publish.synced")
        staged.rename(target)
        crash_point("publish.renamed")
        _sync(target.parent)
        crash_point("publish.done")
    except OSError as error:
        raise OutputError(
            f"{target}: the result cannot be moved into place ({error.strerror}).",
            mend="Check the disk, and that nothing else writes into the folder.",
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write JSON that is equal for equal values, and replace what was there in one step."""
    text = orjson.dumps(
        value,
        option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE,
    )
    write_whole(path, text)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, sync it, and move it into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        crash_point("whole.written")
        _sync(temporary)
        crash_point("whole.synced")
        temporary.replace(path)
        crash_point("whole.replaced")
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}).", mend="Check the disk and its rights."
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
