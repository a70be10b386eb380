"""Cells of a slide: what they are written to, a million at a time, and read from again.

The public names are loaded when first used: Arrow, Zarr and compiled loops come with some.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cell_chunks import CellChunk
    from .cell_geojson import CellFiles, read_cell_geojson, write_cell_geojson
    from .cell_labels import CellLabels, count_label_pixels, write_cell_labels
    from .cell_parquet import read_cell_parquet, write_cell_parquet
    from .label_frame import LabelFrame
    from .label_places import LabelPlace

__all__ = [
    "CellChunk",
    "CellFiles",
    "CellLabels",
    "LabelFrame",
    "LabelPlace",
    "count_label_pixels",
    "read_cell_geojson",
    "read_cell_parquet",
    "write_cell_geojson",
    "write_cell_labels",
    "write_cell_parquet",
]

_HOME = {
    "cell_chunks": ("CellChunk",),
    "cell_geojson": ("CellFiles", "read_cell_geojson", "write_cell_geojson"),
    "cell_labels": ("CellLabels", "count_label_pixels", "write_cell_labels"),
    "cell_parquet": ("read_cell_parquet", "write_cell_parquet"),
    "label_frame": ("LabelFrame",),
    "label_places": ("LabelPlace",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
