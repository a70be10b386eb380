"""Where to look: tissue, the grid of tiles, and reading them in batches."""

from .tiles import TileBatch, TileGrid, Tiles, TissueMask

__all__ = ["TileBatch", "TileGrid", "Tiles", "TissueMask"]
