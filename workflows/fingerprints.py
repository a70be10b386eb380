"""Whether a slide must be looked at again: everything that its outcome depends on, in one hash.

Nothing is opened for it. What tells that a file was written or replaced is its inode, size, mtime
and ctime; of these the last is set by the system alone.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import orjson

from slidetriage import __version__
from slidetriage.wsi import DICOM_SUFFIXES, file_signatures

from .identity import SCHEMA_VERSION
from .settings import Settings
from .sources import SIDECAR_SUFFIX, SlideRequest, public_name


def fingerprint(request: SlideRequest, model: str, settings: Settings) -> str | None:
    """sha256 over the slide's files as they lie there, the request, the model and the settings.

    None where a file cannot be looked at: then nothing is known of it.

    Parameters
    ----------
    model
        The model's identity.
    """
    try:
        signatures = file_signatures(_files(request.path))
    except OSError:
        return None
    record = {
        "schema": SCHEMA_VERSION,
        "version": __version__,
        "files": signatures,
        "name": os.fsencode(public_name(request, settings)).hex(),
        "mpp": [request.mpp, request.mpp_source],
        "sha256": request.sha256,
        "stain": request.stain,
        "problem": request.problem and request.problem[0],
        "model": model,
        "settings": settings.as_record(),
    }
    return hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _files(path: Path) -> tuple[Path, ...]:
    """The slide's own file and those that may belong to it, without opening any."""
    suffix = path.suffix.lower()
    beside = path.with_name(f"{path.name}{SIDECAR_SUFFIX}")
    stated = (beside,) if os.path.lexists(beside) else ()
    if suffix == ".mrxs":
        parts = path.with_suffix("").rglob("*")
    elif suffix in (".vms", ".vmu"):
        parts = path.parent.iterdir()
    elif suffix in DICOM_SUFFIXES:
        parts = (p for p in path.parent.iterdir() if p.suffix.lower() in DICOM_SUFFIXES)
    else:
        return (path, *stated)
    return (path, *stated, *sorted(part for part in parts if part.is_file()))
