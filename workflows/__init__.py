"""Plans, distributes and publishes. Owns Dask, zarr, GeoJSON and the command line.

The public names are loaded when first used: the command line answers `--help` without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import Settings

if TYPE_CHECKING:
    from .driver import Resources, TriageReport, Watcher, resume, triage, watch

__all__ = ["Resources", "Settings", "TriageReport", "Watcher", "resume", "triage", "watch"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import driver

    return getattr(driver, name)
