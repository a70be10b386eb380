"""Copies of nuclei laid against others: more places where nuclei touch, with the border known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .targets import relabel

Image = NDArray[np.uint8]
Labels = NDArray[np.int32]

LEAST_AREA_PX = 30
MOST_HIDDEN = 0.3
"""Share of a nucleus that a copy may cover."""

LARGEST_TO_COPY = 2.5
"""In median areas; larger ones are often several under one label."""

MOST_COPIES = 24
_MARGIN_PX = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Copy:
    """A nucleus by itself, turned."""

    image: Image
    inside: NDArray[np.bool_]


def crowd(image: Image, labels: Labels, rng: np.random.Generator) -> tuple[Image, Labels]:
    """Lay copies of whole nuclei, turned, against others; gives new H x W x 3 and H x W.

    A copy touches its neighbour or covers a little of it, lies on top, and its edge is blended
    over a pixel or two. With fewer than two nuclei nothing changes.
    """
    areas = np.bincount(labels.ravel())
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    whole = np.setdiff1d(np.flatnonzero(areas >= LEAST_AREA_PX), [0, *edges])
    if len(whole):
        whole = whole[areas[whole] <= LARGEST_TO_COPY * np.median(areas[whole])]
    count = int(np.count_nonzero(areas[1:]))
    if not len(whole) or count < 2:
        return image, labels
    crowded, numbers = image.copy(), labels.copy()
    for _ in range(int(rng.integers(2, max(3, min(MOST_COPIES, count)) + 1))):
        copy = _turn(image, labels == rng.choice(whole), rng)
        others = np.flatnonzero(np.bincount(numbers.ravel())[1:]) + 1
        _lay(copy, crowded, numbers, numbers == rng.choice(others), rng)
    return crowded, relabel(numbers)


def _turn(image: Image, inside: NDArray[np.bool_], rng: np.random.Generator) -> _Copy:
    """Cut a nucleus out with some pixels around it, at any angle and a slightly other size."""
    x, y, wide, tall = cv2.boundingRect(inside.astype(np.uint8))
    rows = slice(max(0, y - _MARGIN_PX), y + tall + _MARGIN_PX)
    columns = slice(max(0, x - _MARGIN_PX), x + wide + _MARGIN_PX)
    part, mask = image[rows, columns], inside[rows, columns].astype(np.float32)
    side = int(np.hypot(*mask.shape)) + 4
    middle = np.array(mask.shape[::-1]) / 2
    scale = float(np.exp(rng.normal(0, 0.1)))
    matrix = cv2.getRotationMatrix2D(tuple(middle), float(rng.uniform(0, 360)), scale)
    matrix[:, 2] += side / 2 - middle
    size = (side, side)
    turned = cv2.warpAffine(part, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
    return _Copy(np.asarray(turned, np.uint8), cv2.warpAffine(mask, matrix, size) > 0.5)


def _lay(
    copy: _Copy,
    image: Image,
    labels: Labels,
    neighbour: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Draw the copy beside the neighbour, in place; not where it would hide too much."""
    angle = rng.uniform(0, 2 * np.pi)
    towards = np.array([np.sin(angle), np.cos(angle)])
    ours, theirs = (np.argwhere(mask) for mask in (copy.inside, neighbour))
    if len(ours) < LEAST_AREA_PX:
        return
    middle, centre = ours.mean(0), theirs.mean(0)
    ahead, behind = ((theirs - centre) @ towards).max(), ((middle - ours) @ towards).max()
    reach = ahead + behind + 0.5 + behind * rng.uniform(-0.25, 0.1)
    top, left = np.rint(centre + towards * reach - middle).astype(int)
    (height, width), side = labels.shape, len(copy.inside)
    if top >= height or left >= width or top + side <= 0 or left + side <= 0:
        return
    spot = (
        slice(max(0, top), min(height, top + side)),
        slice(max(0, left), min(width, left + side)),
    )
    part = tuple(slice(s.start - at, s.stop - at) for s, at in zip(spot, (top, left), strict=True))
    inside = copy.inside[part]
    if np.count_nonzero(inside) < LEAST_AREA_PX:
        return
    areas = np.bincount(labels.ravel())
    hidden = np.bincount(labels[spot][inside], minlength=len(areas))
    if (hidden[1:] > MOST_HIDDEN * areas[1:]).any():
        return
    soft = cv2.dilate(copy.inside.astype(np.float32), np.ones((3, 3), np.uint8))
    cover = cv2.GaussianBlur(soft, (0, 0), 0.9)[part][..., None]
    image[spot] = np.rint(image[spot] * (1 - cover) + copy.image[part] * cover)
    labels[spot][inside] = len(areas)
