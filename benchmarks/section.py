"""Triage the labelled breast section and compare with the pathologist, tile by tile.

    python benchmarks/section.py [--data DIR] [--out DIR] [--json]

Prints AUC over tiles, Dice of the flagged tiles, and what is wrong; draws labels beside heatmap.
The patient of this section is in no training set, and nothing was chosen on it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import zarr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from mosaic import default_data
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from slidetriage import Resources, load_bundle, triage
from slidetriage.workflows.steps import SlideResult

SLIDE, LABELS = "slides/idc_14082.tif", "slides/idc_14082_labels.png"
TILE_PX = 50


def label_tiles(labels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.float64]:
    """1 carcinoma, 0 none, by majority of each tile's pixels; NaN where under half is labelled."""
    truth = np.full(shape, np.nan)
    for row, column in np.ndindex(*shape):
        part = labels[row * TILE_PX :, column * TILE_PX :][:TILE_PX, :TILE_PX]
        if (part > 0).mean() > 0.5:
            truth[row, column] = (part == 2).sum() > (part == 1).sum()
    return truth


def compare(folder: Path, labels: NDArray[np.uint8], threshold: float) -> dict[str, float]:
    """AUC and Dice over the tiles that are labelled and were read."""
    heat = np.asarray(zarr.open_group(folder / "heatmap.zarr", mode="r")["s0"])[0]
    truth = label_tiles(labels, heat.shape)
    both = ~np.isnan(truth) & ~np.isnan(heat)
    positive, flagged = truth[both] == 1, heat[both] >= threshold
    return {
        "tiles": int(both.sum()),
        "labelled_but_not_read": int((~np.isnan(truth) & np.isnan(heat)).sum()),
        "auc": float(roc_auc_score(positive, heat[both])),
        "dice": float(2 * (positive & flagged).sum() / (positive.sum() + flagged.sum())),
        "missed_tiles": int((positive & ~flagged).sum()),
        "false_tiles": int((~positive & flagged).sum()),
    }


def draw(path: Path, folder: Path, labels: NDArray[np.uint8], threshold: float) -> None:
    """Labels, heatmap, and where they differ, side by side."""
    heat = np.asarray(zarr.open_group(folder / "heatmap.zarr", mode="r")["s0"])[0]
    truth = label_tiles(labels, heat.shape)
    known = ~np.isnan(truth) & ~np.isnan(heat)
    verdict = np.where(known, 2 * (truth == 1) + (heat >= threshold), np.nan)
    figure = Figure(figsize=(15, 4.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    kinds = ListedColormap(["#d9d9d9", "#e08214", "#2166ac", "#1b7837"])
    panels = (
        (truth, "viridis", 1, "pathologist: carcinoma"),
        (heat, "viridis", 1, "probability"),
        (verdict, kinds, 3, "orange false, blue missed, green agreed, grey agreed none"),
    )
    for axes, (image, colours, top, title) in zip(figure.subplots(1, 3), panels, strict=True):
        shown = axes.imshow(image, cmap=colours, vmin=0, vmax=top)
        axes.set(title=title, xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes)
    figure.savefig(path)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="section-"))
    report = triage(arguments.data / SLIDE, out, resources=Resources("serial"))
    outcome = report.rows[0].outcome
    if not isinstance(outcome, SlideResult):
        raise SystemExit(f"the section was not triaged: {outcome.message}")
    labels = np.asarray(Image.open(arguments.data / LABELS))
    threshold = load_bundle("breast-idc-scout").card.tile_threshold.value
    folder = out / outcome.directory
    figures = {"score": outcome.score, **compare(folder, labels, threshold)}
    draw(out / "section.png", folder, labels, threshold)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:.4g}")
    print(f"picture: {out / 'section.png'}")


if __name__ == "__main__":
    main()
