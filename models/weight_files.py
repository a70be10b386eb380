"""Files of weights, read whole within bounds and compared with their SHA-256; without torch."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

from slidetriage.errors import ModelError

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
MAX_FILE_BYTES = 16 * 2**30

FETCH = "Fetch the weights again from where they were published."


def read_verified(path: Path, *, sha256: str | None = None) -> tuple[bytes, str]:
    """Read a safetensors file whole, once, and give its bytes and their SHA-256.

    Raises `ModelError` where the file is missing, is no safetensors file, has a header of more
    than 16 MiB or more than 100,000 tensors, or does not have the `sha256` asked for.
    """
    data = _read_bounded(path)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ModelError(
            f"{path.name} is not the file its card names: its SHA-256 is {digest[:12]}..., "
            f"not {sha256[:12]}....",
            mend="The file is damaged or was exchanged; fetch the bundle again.",
        )
    return data, digest


def _read_bounded(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path} is not a regular file.", mend="Give a .safetensors file.")
        if status.st_size > MAX_FILE_BYTES:
            raise ModelError(f"{path.name} is larger than 16 GiB.", mend="Check the path.")
        with path.open("rb") as file:
            start = file.read(8)
            size = int.from_bytes(start, "little")
            if len(start) < 8 or size > min(MAX_HEADER_BYTES, status.st_size - 8):
                raise ModelError(
                    f"{path.name} is no safetensors file: its header would be {size:,} bytes.",
                    mend="Only .safetensors is read; convert other formats where they were made.",
                )
            header = file.read(size)
            _check_header(path, header)
            return start + header + file.read(status.st_size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}).", mend=FETCH) from error


def _check_header(path: Path, header: bytes) -> None:
    try:
        table = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is damaged: its header is no JSON.", mend=FETCH) from error
    if not isinstance(table, dict) or len(table) > MAX_TENSORS:
        raise ModelError(f"{path.name} lists too many tensors or none.", mend=FETCH)
