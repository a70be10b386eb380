"""Weights from safetensors files, checked before any of them is used; never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from slidetriage.errors import ModelError

from .weight_files import FETCH, read_verified


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
    data, digest = read_verified(path, sha256=sha256)
    try:
        return Weights(safetensors.torch.load(data), digest)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path.name} is damaged ({error}).", mend=FETCH) from error


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
