"""Files that only grow: opened without following a link, taken up where they end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from slidetriage.errors import OutputError

_BLOCK = 64 * 1024


def make_folder(path: Path, *, mode: int) -> int:
    """Make a folder if it is missing; its descriptor, for the caller to close.

    Raises `OutputError` where something else, such as a link, stands at its place.
    """
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=mode)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, error) from error


def open_to_append(path: Path, *, mode: int, folder: int | None = None) -> int:
    """Open a plain file, made if missing; its descriptor, for the caller to close.

    Parameters
    ----------
    folder
        Descriptor of the folder that holds it; nobody can put another in its place meanwhile.

    Raises
    ------
    OutputError
        The file cannot be opened, or is a link or no plain file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path if folder is None else path.name, flags, mode, dir_fd=folder)
    except OSError as error:
        raise _refused(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutputError(f"{path}: this is no plain file.", mend="Move it away, then run again.")
    return descriptor


def append(descriptor: int, content: bytes) -> None:
    """Write all of it at the end, or leave the file as it was and raise `OSError`."""
    size = os.fstat(descriptor).st_size
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def read_at(descriptor: int, start: int, length: int) -> bytes:
    """All bytes from `start` on, `length` of them or as many as there are."""
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, start)):
        parts.append(part)
        start += len(part)
        length -= len(part)
    return b"".join(parts)


def last_line(descriptor: int, readable: Callable[[bytes], bool]) -> tuple[int, bytes]:
    """Where the last readable whole line ends, and the line; 0 and nothing without one.

    Only the end of the file is read, so that a long file is taken up as fast as a short one.
    """
    start, tail = os.fstat(descriptor).st_size, b""
    while start > 0:
        length = min(max(_BLOCK, len(tail)), start)
        start -= length
        tail = read_at(descriptor, start, length) + tail
        end = tail.rfind(b"\n")
        while end >= 0:
            begin = tail.rfind(b"\n", 0, end) + 1
            if begin == 0 and start > 0:
                break  # the line begins further up
            if readable(tail[begin:end]):
                return start + end + 1, tail[begin:end]
            end = begin - 1
    return 0, b""


def _refused(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return OutputError(
            f"{path}: there is a link or a file where a run keeps its record.",
            mend="Find out who put it there, move it away, then run again.",
        )
    return OutputError(
        f"{path}: cannot be written ({error.strerror}).", mend="Check the disk and its rights."
    )
