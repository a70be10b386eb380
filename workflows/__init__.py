"""Plans, distributes and publishes. Owns Dask, zarr, GeoJSON and the command line."""

from .settings import Settings
from .driver import Resources, TriageReport, Watcher, triage

__all__ = ["Resources", "Settings", "TriageReport", "Watcher", "triage"]
