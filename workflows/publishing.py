"""Results appear whole or not at all: staged beside the target, synced, moved by one rename."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from slidetriage.errors import OutputError

from .crash_points import crash_point

STAGING = ".staging"
_LOCK = ".slidetriage.lock"


@contextmanager
def claim_output(out: Path) -> Iterator[Path]:
    """Own the output folder: create it, check that it can be written, keep other runs out.

    Yields the staging folder, which is empty, on the same file system as the results, and removed
    in the end. Raises `OutputError` (E_OUTPUT, or E_LOCKED where another run owns it).
    """
    lock = _lock(out)
    try:
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode("ascii"))
        crash_point("claim.locked")
        staging = out / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        crash_point("claim.staged")
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            (out / _LOCK).unlink(missing_ok=True)
    finally:
        os.close(lock)


def _lock(out: Path) -> int:
    """Lock the folder; the handle, for the caller to close once its file is unlinked."""
    while True:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = os.open(out / _LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OutputError(
                f"{out}: results cannot be written here ({error.strerror}).",
                mend="Choose a folder you may write to with --out.",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 64).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise OutputError(
                f"{out}: another run (process {holder}) is writing here.",
                mend="Wait for it, or choose another --out.",
                code="E_LOCKED",
            ) from error
        # A run that just ended may have unlinked the file between opening and locking it.
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(out / _LOCK)):
                return lock
        os.close(lock)


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
