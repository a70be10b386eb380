"""How well a bundle tells what it did not learn from, and what share of it needs eyes.

    python benchmarks/novelty.py [--model breast-idc-scout] [--json]

Familiar are the tiles of the test patients that the card names, a bag for each. Against them: the
same tiles recoloured as if stained with DAB instead of eosin, blurred, and darkened; tiles of a
kidney; and tiles of painted slides. Bags of 40 tiles are drawn from slides. Printed are the AUROC
of tiles and of bags by their distance, and the share of bags beyond the card's limit, which a run
sends to a person whatever their score.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mosaic import default_data
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hed2rgb, rgb2hed
from sklearn.metrics import roc_auc_score

from slidetriage.models import Bundle, load_bundle
from slidetriage.models.trust import slide_distance
from slidetriage.tiling import (
    TileBatch,
    TileGrid,
    find_tissue,
    read_thumbnail,
    read_tiles,
    select_tiles,
)
from slidetriage.wsi import PhantomSpec, open_reader, open_slide, paint_phantom

LEAST_TILES = 10
BAG_TILES = 40

Images = NDArray[np.uint8]


def recolour(images: Images) -> Images:
    """Brown instead of pink: what eosin took becomes DAB."""
    found = np.empty_like(images)
    for index, image in enumerate(images):
        stains = rgb2hed(image)  # H x W x 3: haematoxylin, eosin, DAB
        stains[..., 2], stains[..., 1] = stains[..., 1], 0
        found[index] = (hed2rgb(stains) * 255).round()
    return found


def blur(images: Images) -> Images:
    """Out of focus by 1.5 px."""
    return gaussian_filter(images, (0, 1.5, 1.5, 0))


def darken(images: Images) -> Images:
    """As under a lamp that gives 60 % of the light."""
    return (images * 0.6).astype(np.uint8)


def cut(path: Path, bundle: Bundle) -> Images:
    """The tissue tiles of a slide."""
    card, slide = bundle.card, open_slide(path)
    reader = open_reader(slide)
    low_power = read_thumbnail(reader)
    tissue = find_tissue(low_power.rgb, low_power.valid, (low_power.mpp_x, low_power.mpp_y))
    grid = TileGrid.over(slide, tile_px=card.tile_px, stride_px=card.tile_px, mpp=card.mpp)
    tiles = select_tiles(grid, tissue, min_tissue=0.5)
    return read_tiles(reader, TileBatch(slide, tiles, 0)).images


def kidney(data: Path, bundle: Bundle) -> Images:
    """Overlapping tiles of a kidney's photograph, whose scale nobody stated, at two scales."""
    with Image.open(data / "slides" / "kidney-48-5.tif") as image:
        whole = image.convert("RGB")
    side, found = bundle.card.tile_px, []
    for scale in (1.0, 0.5):
        small = np.asarray(whole.resize((round(whole.width * scale), round(whole.height * scale))))
        for top in range(0, small.shape[0] - side + 1, side // 2):
            for left in range(0, small.shape[1] - side + 1, side // 2):
                tile = small[top : top + side, left : left + side]
                if tile.mean() < 230:
                    found.append(tile)
    return np.stack(found)


def bags_of(distances: NDArray[np.float32], rng: np.random.Generator) -> list[float]:
    """Distances of 40 bags drawn from one slide's tiles."""
    draws = (
        rng.choice(distances, min(BAG_TILES, len(distances)), replace=False) for _ in range(40)
    )
    return [slide_distance(draw) for draw in draws]


def measure(bundle: Bundle, data: Path, work: Path) -> dict[str, object]:
    """Distances of every kind against those of the test patients."""
    assert bundle.card.novelty is not None
    limit, rng = bundle.card.novelty.limit, np.random.default_rng(0)
    with np.load(data / "idc" / "idc_tiles.npz") as arrays:
        names = arrays["patient"].astype(str)
        chosen = np.isin(names, bundle.card.training.test_patients)
        images, patients = arrays["image"][chosen], names[chosen]

    def distances(tiles: Images) -> NDArray[np.float32]:
        found = bundle.distances(bundle.encode(tiles))
        assert found is not None
        return found

    def by_patient(values: NDArray[np.float32]) -> list[float]:
        rows = (values[patients == name] for name in np.unique(patients))
        return [slide_distance(row) for row in rows if len(row) >= LEAST_TILES]

    familiar = distances(images)
    slides = by_patient(familiar)
    report: dict[str, object] = {
        "limit": limit,
        "test patients": {"bags": len(slides), "needs_eyes": share_beyond(slides, limit)},
    }
    kinds: list[tuple[str, NDArray[np.float32], list[float]]] = []
    for name, change in (("as DAB", recolour), ("blurred", blur), ("darker by 40 %", darken)):
        found = distances(change(images))
        kinds.append((name, found, by_patient(found)))
    paint_phantom(work / "painted.tif", PhantomSpec(width_mm=6.0, height_mm=5.0, mpp=2.0))
    for name, tiles in (
        ("kidney", kidney(data, bundle)),
        ("painted slide", cut(work / "painted.tif", bundle)),
    ):
        found = distances(tiles)
        kinds.append((name, found, bags_of(found, rng)))
    for name, found, bags in kinds:
        report[name] = {
            "tiles": len(found),
            "auroc_tiles": auroc(familiar, found),
            "bags": len(bags),
            "auroc_bags": auroc(slides, bags),
            "needs_eyes": share_beyond(bags, limit),
        }
    return report


def auroc(familiar: Sequence[float] | NDArray[np.float32], strange: object) -> float:
    """Chance that something strange lies further off than something familiar."""
    scores = np.concatenate([np.asarray(familiar), np.asarray(strange)])
    labels = np.arange(len(scores)) >= len(familiar)
    return round(float(roc_auc_score(labels, scores)), 4)


def share_beyond(bags: Sequence[float], limit: float) -> float:
    """Share of the bags that need eyes for their distance alone."""
    return round(float((np.asarray(bags) > limit).mean()), 4)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="breast-idc-scout")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--data", type=Path, default=default_data())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        report = measure(load_bundle(arguments.model), arguments.data, Path(work))
    if arguments.json:
        print(json.dumps(report))
        return
    for name, figures in report.items():
        print(f"{name:16} {figures}")


if __name__ == "__main__":
    main()
