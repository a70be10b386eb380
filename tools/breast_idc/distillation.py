"""Labels softened by what several trained networks say of each tile, seen from eight sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from breast_idc.tile_stage import TileClassifier, score_plain
from breast_idc.tiles import LabelledTiles


def soften(
    tiles: LabelledTiles, teachers: Sequence[TileClassifier], *, share: float, input_px: int
) -> LabelledTiles:
    """The same tiles with labels (1 - share) x label + share x p, p by the mean logit of teachers.

    A pathologist outlined regions, so single tiles within are labelled wrongly; a teacher that
    doubts such a label says so (Hinton, Vinyals and Dean, arXiv:1503.02531). The teachers learned
    from the same tiles and from no others.
    """
    logits = np.mean([score_all_sides(teacher, tiles.images, input_px) for teacher in teachers], 0)
    p = 1 / (1 + np.exp(-logits))
    return dataclasses.replace(tiles, labels=(1 - share) * tiles.labels + share * p)


def score_all_sides(
    model: TileClassifier, images: NDArray[np.uint8], input_px: int
) -> NDArray[np.float64]:
    """Mean logit of each tile over its four turns, plain and mirrored."""
    sides = [score_plain(model, side, input_px) for side in turn(images)]
    return np.mean(sides, axis=0, dtype=np.float64)


def turn(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """N x S x S x 3 in its eight positions, the given one first."""
    for quarters in range(4):
        turned = np.rot90(images, quarters, (1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
