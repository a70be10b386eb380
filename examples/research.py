"""Where a researcher starts: score tiles of one slide from Python and look at the numbers.

python examples/research.py SLIDE [MPP]
"""

from __future__ import annotations

import sys

from slidetriage import find_tissue, load_bundle, open_reader, open_slide
from slidetriage.tiling import TileBatch, TileGrid, read_thumbnail, read_tiles, select_tiles


def main(path: str, mpp: float | None = None) -> None:
    """Print the share of tissue tiles above the bundle's threshold, and the highest five."""
    bundle = load_bundle("breast-idc-scout")
    slide = open_slide(path, mpp=mpp)
    reader = open_reader(slide)
    low_power = read_thumbnail(reader)
    tissue = find_tissue(low_power.rgb, low_power.valid, (low_power.mpp_x, low_power.mpp_y))
    grid = TileGrid.over(slide, tile_px=bundle.card.tile_px, stride_px=50, mpp=bundle.card.mpp)
    tiles = select_tiles(grid, tissue, min_tissue=0.25)
    scores = bundle.tile_scores(read_tiles(reader, TileBatch(slide, tiles, 0)).images)
    print(f"{len(tiles)} tiles, {(scores >= bundle.card.tile_threshold.value).mean():.1%} flagged")
    for index in scores.argsort()[::-1][:5]:
        x, y = tiles.boxes[index, :2]
        print(f"  {scores[index]:.3f} at level-0 pixel ({x:.0f}, {y:.0f})")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else None)
