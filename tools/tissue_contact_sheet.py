"""Draw the tissue outline on every overview and on the Camelyon16 section, on one sheet to look at.

The overviews state no scale. Where one shows a scale bar it is 18 to 43 um/px; they are taken as
the coarsest scale that tissue is looked for at (16 um/px) unless `--overview-mpp` says otherwise.

    python tools/tissue_contact_sheet.py --data ../shared/data --out sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage as ndi

from slidetriage.tiling import find_tissue

CAMELYON = "slides/camelyon16_tumor_001_level5.tif"
CAMELYON_MPP = 7.8
OUTLINE_RGB = (0, 150, 0)


def main() -> None:
    """Write the sheet that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--masker", default="slidetriage")
    parser.add_argument("--overview-mpp", type=float, default=16.0)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--width", type=int, default=992, help="px of one picture")
    options = parser.parse_args()
    sources = [
        (path, options.overview_mpp) for path in sorted(options.data.glob("overviews/*.jpg"))
    ]
    sources.append((options.data / CAMELYON, CAMELYON_MPP))
    cells = []
    for number, (path, mpp) in enumerate(sources):
        cell, share = draw_outline(path, mpp, masker=options.masker, width_px=options.width)
        ImageDraw.Draw(cell).text((4, 4), f"{number} {path.stem}", fill=(200, 0, 0))
        print(f"{number:3d}  {share:6.1%}  {path.name}")
        cells.append(cell)
    lay_out(cells, options.columns).save(options.out)


def draw_outline(
    path: Path, mpp: float, *, masker: str, width_px: int
) -> tuple[Image.Image, float]:
    """The image with the outline of its tissue, and the share of it that is tissue."""
    rgb = read_rgb(path)
    tissue = find_tissue(rgb, np.ones(rgb.shape[:2], np.bool_), (mpp, mpp), masker=masker).mask
    scale = max(rgb.shape[1] / width_px, rgb.shape[0] / (0.75 * width_px))
    size = (round(rgb.shape[1] / scale), round(rgb.shape[0] / scale))
    small = np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
    mask = np.array(Image.fromarray(tissue).resize(size, Image.Resampling.NEAREST))
    small[ndi.binary_dilation(mask) ^ ndi.binary_erosion(mask, border_value=1)] = OUTLINE_RGB
    return Image.fromarray(small), float(tissue.mean())


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The whole of a JPEG or TIFF."""
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path), np.uint8)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def lay_out(cells: list[Image.Image], columns: int) -> Image.Image:
    """All cells in rows on a dark sheet."""
    width, height = max(c.width for c in cells), max(c.height for c in cells)
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), (40, 40, 40))
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * width, number // columns * height))
    return sheet


if __name__ == "__main__":
    main()
