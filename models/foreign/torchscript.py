"""TorchScript tile models: programs of their own, so opened only if pinned or accepted."""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError
from slidetriage.models.fields import write_fields

from .archive import open_archive
from .pinned import read_pinned
from .tile_models import TileModel, TileModelCard

_BATCH_TILES = 32
_DANGER = (
    "a TorchScript file is a program; its code runs as it is loaded and used, and can read and "
    "write files."
)
# torch's own operators for files, and all of torchvision's, which read and write images.
_FILE_ACCESS = re.compile(rb"\b((?:torch|ops\.aten)\.(?:from_file|save|load)|ops\.image\.\w+)\s*\(")


def load_torchscript(
    path: Path,
    card: TileModelCard,
    *,
    sha256: str | None = None,
    accept_unpinned: bool = False,
    device: str = "cpu",
) -> TileModel:
    """Open a tile model that torch.jit.save wrote, N x 3 x P x P float32 to N x K.

    The code in it that reaches for files by the known operators is refused before it is loaded;
    that is a second line, the first is to know by `sha256` whose file it is.

    Raises `UsageError` where neither digest nor `accept_unpinned` is given, and `ModelError` for
    another file, a damaged one, or one that does not run.
    """
    file = read_pinned(path, sha256=sha256, accept_unpinned=accept_unpinned, danger=_DANGER)
    archive = open_archive(file.data, where=file.name)
    code = [name for name in archive.sizes if name.startswith("code/") and name.endswith(".py")]
    if not code:
        raise ModelError(
            f"{file.name} holds no TorchScript module.",
            mend="A table of weights is read with read_pickled.",
        )
    for name in code:
        found = _FILE_ACCESS.search(archive.read(name, where=file.name))
        if found is not None:
            raise ModelError(
                f"{file.name} is refused: {name} in it calls {found[1].decode()!r}, which reaches "
                "for files.",
                mend="No tile model needs that; do not use the file.",
            )
    module = _load(file.data, file.name, device)

    def classify(x: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            with torch.inference_mode(), _exact():
                out = module(torch.from_numpy(x).to(device))
        except (RuntimeError, TypeError, ValueError) as error:
            raise _refuse(card.name, error) from error
        if not isinstance(out, torch.Tensor):
            raise _refuse(card.name, TypeError(f"it gives {type(out).__name__}, not a tensor"))
        return out.float().cpu().numpy()

    return TileModel(card, identify(card, file.sha256), _BATCH_TILES, classify)


def identify(card: TileModelCard, *digests: str) -> str:
    """SHA-256 over the digests of a model's files and over its card."""
    text = json.dumps([*digests, write_fields(card)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _load(data: bytes, name: str, device: str) -> Any:
    try:
        with warnings.catch_warnings():
            # Deprecated since torch 2.12, but it is what published models are.
            warnings.filterwarnings("ignore", r".*torch\.jit\.\w+.*deprecated", DeprecationWarning)
            module = torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]  # torch's
    except (RuntimeError, ValueError, TypeError) as error:
        raise _refuse(name, error) from error
    return module.eval()


def _exact() -> Any:
    """On a GPU, neither TF32 nor algorithms chosen by the clock."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _refuse(name: str, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ModelError(
        f"{name} cannot be run as a TorchScript tile model ({lines[-1][:200]}).",
        mend="It must take N x 3 x height x width float32 and give N x classes.",
    )
