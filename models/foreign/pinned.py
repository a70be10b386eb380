"""Files that may hold code, read whole and once, and only if the caller says which file it is."""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.weight_files import MAX_FILE_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class PinnedFile:
    """The bytes of a file and their SHA-256; what was hashed is what is used."""

    name: str
    data: bytes
    sha256: str


def read_pinned(
    path: Path, *, sha256: str | None, accept_unpinned: bool, danger: str
) -> PinnedFile:
    """Read a file whose SHA-256 is `sha256`, or any file if `accept_unpinned`.

    Raises `UsageError` where neither is given, saying the `danger`, and `ModelError` where the
    file cannot be read or is another one.
    """
    if sha256 is None and not accept_unpinned:
        raise UsageError(
            f"{path.name} is not opened: {danger}",
            mend="If you trust where it comes from, give its sha256, or accept_unpinned=True.",
        )
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UsageError(
            f"{sha256!r} is no SHA-256.", mend="Give 64 hex digits, as sha256sum prints them."
        )
    data = read_whole(path)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ModelError(
            f"{path.name} is another file than was pinned: its SHA-256 is {digest[:12]}..., "
            f"not {sha256[:12]}....",
            mend="Fetch it again, or look into where the other file came from.",
        )
    return PinnedFile(path.name, data, digest)


def read_whole(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; raises `ModelError`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path} is not a regular file.", mend="Give the file itself.")
        if status.st_size > limit:
            raise ModelError(
                f"{path.name} has {status.st_size:,} bytes, more than {limit:,}.",
                mend="Check the path.",
            )
        with path.open("rb") as file:
            return file.read(status.st_size)  # reading more would reserve that memory
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}).", mend="Check the path."
        ) from error
