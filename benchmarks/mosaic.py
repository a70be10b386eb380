"""Large slides for benchmarks: real tissue laid side by side, as an Aperio SVS of JPEG 4:2:0 tiles.

    python benchmarks/mosaic.py OUT.svs [--side 24576] [--mpp 0.25] [--data DIR]

Every tile is a tile of CMU-1-Small-Region, encoded at quality 75 and joined in the same order over
and over, so that sizes of tiles and costs of decoding are those of tissue; each is stored anew, so
that the file has the size of a real one. Three levels, 1:4:16, each the mean of level 0.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

SOURCE = "slides/CMU-1-Small-Region.svs"
TILE_PX = 256
LEVELS = (1, 4, 16)
QUALITY = 75


def make_mosaic(
    path: Path, *, width_px: int, height_px: int | None = None, mpp: float = 0.25, data: Path
) -> Path:
    """Write the slide, unless it is there already."""
    if path.exists():
        return path
    height_px = height_px or width_px
    region = read_region(data / SOURCE)
    partial = path.with_suffix(".partial")
    with tifffile.TiffWriter(partial, bigtiff=width_px * height_px > 1 << 32) as tiff:
        for down in LEVELS:
            # The region's sides divide by 16, so a repeated mean is the mean of the repeated.
            level = np.tile(reduce(region, down), (down, down, 1))
            width, height = width_px // down, height_px // down
            tiff.write(
                encode_tiles(level, width, height),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                description=describe(width_px, height_px, mpp) if down == 1 else None,
                metadata=None,
                software="",
            )
    partial.rename(path)
    return path


def read_region(path: Path) -> NDArray[np.uint8]:
    """The source cut to whole tiles; its sides stay whole tiles at every level when repeated."""
    with tifffile.TiffFile(path) as tiff:
        pixels: NDArray[np.uint8] = tiff.pages[0].asarray()
    height, width = (side // TILE_PX * TILE_PX for side in pixels.shape[:2])
    return pixels[:height, :width]


def reduce(image: NDArray[np.uint8], down: int) -> NDArray[np.uint8]:
    """Mean of each down x down px."""
    height, width, _ = image.shape
    parts = image.reshape(height // down, down, width // down, down, 3)
    return parts.mean((1, 3)).round().astype(np.uint8)


def encode_tiles(image: NDArray[np.uint8], width: int, height: int) -> Iterator[bytes]:
    """JPEG tiles that repeat `image` over width x height px."""
    rows, columns = (side // TILE_PX for side in image.shape[:2])
    encoded: dict[tuple[int, int], bytes] = {}
    for row in range(-(-height // TILE_PX)):
        for column in range(-(-width // TILE_PX)):
            key = (row % rows, column % columns)
            if key not in encoded:
                y, x = key[0] * TILE_PX, key[1] * TILE_PX
                tile = np.ascontiguousarray(image[y : y + TILE_PX, x : x + TILE_PX])
                encoded[key] = simplejpeg.encode_jpeg(tile, QUALITY, colorsubsampling="420")
            yield encoded[key]


def describe(width: int, height: int, mpp: float) -> str:
    """What Aperio's scanner would write, as far as readers look at it."""
    return (
        f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] "
        f"({TILE_PX}x{TILE_PX}) JPEG/YCC Q={QUALITY}|AppMag = 40|MPP = {mpp}"
    )


def default_data() -> Path:
    """The real data's folder: SLIDETRIAGE_DATA, or beside the project."""
    beside = Path(__file__).parents[1] / ".." / "shared" / "data"
    return Path(os.environ.get("SLIDETRIAGE_DATA", beside)).resolve()


def main() -> None:
    """Write one mosaic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=24_576, help="px; a multiple of 256")
    parser.add_argument("--height", type=int, default=None, help="px, where not square")
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--data", type=Path, default=default_data())
    args = parser.parse_args()
    make_mosaic(args.out, width_px=args.side, height_px=args.height, mpp=args.mpp, data=args.data)


if __name__ == "__main__":
    main()
