"""Weights from safetensors files, checked before any of them is used; never pickle."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from slidetriage.errors import ModelError

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
MAX_FILE_BYTES = 16 * 2**30

_FETCH = "Fetch the weights again from where they were published."


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Named tensors and the SHA-256 of the very bytes they were read from."""

    tensors: dict[str, Tensor]
    sha256: str


def read_weights(path: Path, *, sha256: str | None = None) -> Weights:
    """Read a safetensors file whole, once, so that what was verified is what is used.

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
    try:
        return Weights(safetensors.torch.load(data), digest)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path.name} is damaged ({error}).", mend=_FETCH) from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load `tensors` into `module` as float32 after comparing every name and shape."""
    wanted = module.state_dict()
    check_shapes({k: tuple(v.shape) for k, v in wanted.items()}, tensors, where=where)
    module.load_state_dict({k: v.to(wanted[k].dtype) for k, v in tensors.items()}, strict=True)


def check_shapes(
    wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], *, where: str
) -> None:
    """Raise `ModelError` unless `tensors` are exactly the `wanted` names and shapes."""
    mend = "The weights belong to another architecture than the one named; correct either."
    for name in sorted(wanted.keys() - tensors.keys()):
        raise ModelError(f"{where}: tensor {name!r} is missing from the weights.", mend=mend)
    for name in sorted(tensors.keys() - wanted.keys()):
        raise ModelError(f"{where}: the weights hold an unknown tensor {name!r}.", mend=mend)
    for name, shape in wanted.items():
        found = tuple(tensors[name].shape)
        if found != shape:
            raise ModelError(f"{where}: tensor {name!r} is {found}, not {shape}.", mend=mend)


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
        raise ModelError(f"{path} cannot be read ({error.strerror}).", mend=_FETCH) from error


def _check_header(path: Path, header: bytes) -> None:
    try:
        table = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is damaged: its header is no JSON.", mend=_FETCH) from error
    if not isinstance(table, dict) or len(table) > MAX_TENSORS:
        raise ModelError(f"{path.name} lists too many tensors or none.", mend=_FETCH)
