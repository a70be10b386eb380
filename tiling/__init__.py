"""Where to look: tissue, the grid of tiles, and reading them in batches."""

from .maskers import check_masker
from .reading import TilePixels, read_tiles
from .selection import select_tiles, split_batches, tissue_fraction
from .thumbnail import Thumbnail, read_thumbnail
from .tiles import TileBatch, TileGrid, Tiles, TissueMask
from .tissue import find_tissue
from .windows import core_edges, grow_area, select_windows, window_grid

__all__ = [
    "Thumbnail",
    "TileBatch",
    "TileGrid",
    "TilePixels",
    "Tiles",
    "TissueMask",
    "check_masker",
    "core_edges",
    "find_tissue",
    "grow_area",
    "read_thumbnail",
    "read_tiles",
    "select_tiles",
    "select_windows",
    "split_batches",
    "tissue_fraction",
    "window_grid",
]
