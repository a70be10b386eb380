"""Weights from files of torch.save, tensors and nothing else, for models published only so.

A pickle can run any code. Here a file must be pinned by its SHA-256 or accepted expressly; its
directory and its pickle are checked without running them; torch then reads it with
`weights_only=True`; and what torch gives must be what was found before.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # the exception torch.load raises, and nothing else of pickle

import safetensors.torch
import torch
from torch import Tensor

from slidetriage.errors import ModelError
from slidetriage.models.weight_files import MAX_TENSORS
from slidetriage.models.weights import Weights

from .archive import Archive, open_archive
from .pickle_program import TensorClaim, follow_program
from .pinned import read_pinned

_DANGER = "a pickled file can run any code as it is loaded."
_MAX_DEPTH = 8


def read_pickled(
    path: Path,
    *,
    sha256: str | None = None,
    accept_unpinned: bool = False,
    part: str | None = None,
) -> Weights:
    """Read the tensors of a file that torch.save wrote, names joined by dots.

    It takes twice the file's size in memory.

    Parameters
    ----------
    path
        A `.pt`, `.pth` or `.bin` file of torch 1.6 or later.
    sha256
        Digest the file must have, as its publisher states it.
    accept_unpinned
        Read whatever file there is, in place of a digest.
    part
        Key of the outermost dict whose tensors are wanted, e.g. "state_dict"; None takes all.

    Raises
    ------
    UsageError
        Neither digest nor consent is given.
    ModelError
        The file is another one, of another format, damaged, or holds more than tensors. Nothing
        in it has run by then.
    """
    file = read_pinned(path, sha256=sha256, accept_unpinned=accept_unpinned, danger=_DANGER)
    archive = open_archive(file.data, where=file.name)
    if any(name.startswith("code/") for name in archive.sizes):
        raise ModelError(
            f"{file.name} is a TorchScript module, not a table of weights.",
            mend="Open it with load_torchscript.",
        )
    program = archive.read("data.pkl", where=file.name)
    claims = _flatten(follow_program(program, where=file.name), part, file.name)
    wanted = {name: _check_claim(name, claim, archive, file.name) for name, claim in claims.items()}
    try:
        loaded = torch.load(
            io.BytesIO(file.data), map_location="cpu", weights_only=True, mmap=False
        )
    except (UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, EOFError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"torch cannot read {file.name} ({line}).", mend="Fetch the file again."
        ) from error
    tensors = {k: _check_tensor(v) for k, v in _flatten(loaded, part, file.name).items()}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != wanted:
        raise ModelError(
            f"{file.name} is refused: torch reads other tensors from it than it lists.",
            mend="The file was tampered with; do not use it.",
        )
    return Weights(tensors, file.sha256)


def convert_pickled(
    path: Path,
    target: Path,
    *,
    sha256: str | None = None,
    accept_unpinned: bool = False,
    part: str | None = None,
) -> str:
    """Write the tensors of a pickled file as safetensors, and return the new file's SHA-256."""
    weights = read_pickled(path, sha256=sha256, accept_unpinned=accept_unpinned, part=part)
    data = safetensors.torch.save(
        {k: v.clone(memory_format=torch.contiguous_format) for k, v in weights.tensors.items()}
    )
    staged = target.with_name(f".{target.name}.partial")
    staged.write_bytes(data)
    staged.replace(target)
    return hashlib.sha256(data).hexdigest()


def _flatten(value: object, part: str | None, where: str) -> dict[str, object]:
    if part is not None:
        if not isinstance(value, Mapping) or part not in value:
            keys = ", ".join(map(str, list(value)[:10])) if isinstance(value, Mapping) else "none"
            raise ModelError(f"{where} has no part {part!r}.", mend=f"It has: {keys}.")
        value = value[part]
    found: dict[str, object] = {}
    pending: list[tuple[str, object, int]] = [("", value, 0)]
    visited = 0
    while pending:
        name, item, depth = pending.pop()
        visited += 1
        if visited > MAX_TENSORS or depth > _MAX_DEPTH:
            raise ModelError(f"{where} is refused: it nests too deep or too much.", mend=_SAVE)
        if isinstance(item, Mapping):
            if len(item) + len(pending) > MAX_TENSORS:
                raise ModelError(f"{where} is refused: it lists too many tensors.", mend=_SAVE)
            pending += [(f"{name}.{k}" if name else str(k), v, depth + 1) for k, v in item.items()]
        elif not isinstance(item, Tensor | TensorClaim):
            raise ModelError(
                f"{where}: {name or 'its content'!r} is {type(item).__name__}, not a tensor.",
                mend="Name the part that holds the weights, e.g. part='state_dict'.",
            )
        elif name in found or not name:
            raise ModelError(f"{where}: {name!r} is no name of its own for a tensor.", mend=_SAVE)
        else:
            found[name] = item
    if not found:
        raise ModelError(f"{where} holds no tensors.", mend=_SAVE)
    return found


def _check_claim(name: str, claim: object, archive: Archive, where: str) -> tuple[int, ...]:
    assert isinstance(claim, TensorClaim)  # _flatten lets nothing else pass
    storage = claim.storage
    held = archive.sizes.get(f"data/{storage.key}")
    if held != storage.numbers * storage.item_bytes or not claim.fits():
        raise ModelError(
            f"{where} is refused: tensor {name!r} claims {storage.numbers:,} numbers of "
            f"{storage.item_bytes} bytes, but the file holds {held or 0:,} bytes for it.",
            mend="Fetch the file again, or do not use it.",
        )
    return claim.shape


def _check_tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)  # _flatten lets nothing else pass
    return value.detach()


_SAVE = "Where it was made, save its state_dict alone, with safetensors."
