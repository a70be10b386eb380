"""manifest.json: where a result comes from and the hash of every file in its folder.

A result is done when its folder has its name and its manifest verifies; that a file exists means
nothing. Nothing in it depends on when, where or on how many workers the result was made.
"""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

import slidetriage

from .identity import SCHEMA_VERSION
from .publishing import write_json
from .settings import RESEARCH_USE, Settings
from .steps import SlidePlan, SlideResult

if TYPE_CHECKING:
    from slidetriage.models import Bundle

MANIFEST = "manifest.json"

VERSIONED = (
    "torch", "timm", "numpy", "scipy", "scikit-image", "zarr", "shapely", "openslide-python",
    "openslide-bin", "pillow", "matplotlib", "tiatoolbox",
)  # fmt: skip


def provenance(
    plan: SlidePlan, bundle: Bundle, settings: Settings, runtimes: tuple[str, ...]
) -> dict[str, object]:
    """What made the result: slide, scale, model, parameters, software."""
    import torch

    card = bundle.card
    return {
        "notice": RESEARCH_USE,
        "key": plan.key,
        "slide": slide_provenance(plan),
        "model": {
            "name": card.name,
            "version": card.version,
            "identity": bundle.identity,
            "weights_sha256": card.weights.sha256,
            "architecture": card.encoder.name,
            "mpp": card.mpp,
            "tile_px": card.tile_px,
        },
        "runtime": {**bundle.prepare().as_record(), "encoded_by": list(runtimes)},
        "parameters": settings.as_record(),
        "software": {
            **list_versions(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        },
    }


@cache
def list_versions() -> dict[str, str]:
    """Of slidetriage, Python and packages; to look them up takes 10 ms, too much for each slide."""
    return {
        "slidetriage": slidetriage.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONED},
    }


def slide_provenance(plan: SlidePlan) -> dict[str, object]:
    """Which slide it was, and how it was read."""
    slide = plan.slide
    return {
        "slide_id": plan.slide_id,
        "sha256": plan.sha256,
        "files": len(slide.files),
        "bytes": sum(path.stat().st_size for path in slide.files),
        "vendor": slide.vendor,
        "reader": slide.reader,
        "reader_reason": slide.reader_reason,
        "levels": [[level.width_px, level.height_px, level.downsample] for level in slide.levels],
        "mpp": {"x": slide.mpp.x, "y": slide.mpp.y, "source": slide.mpp.source},
        "bounds_px": [slide.bounds.x, slide.bounds.y, slide.bounds.width, slide.bounds.height],
    }


def write_manifest(
    folder: Path, plan: SlidePlan, result: SlideResult, origin: dict[str, object]
) -> None:
    """Write the manifest over every file that is in `folder` now."""
    write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            "key": plan.key,
            "state": result.state,
            "provenance": origin,
            "tiles": {"planned": result.tiles, "unreadable": result.unreadable},
            "files": hash_files(folder),
        },
    )


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file under `folder` but the manifest, by path within it, sorted."""
    return {
        str(path.relative_to(folder)): _hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _hash_file(path: Path) -> str:
    # Read in pieces: the nuclei of a slide can be a file of a gigabyte.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified_key(folder: Path) -> str | None:
    """The key of the finished result in `folder`; None where there is none or it is damaged."""
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        if manifest["files"] == hash_files(folder):
            return str(manifest["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None
