"""The labelled images, which of them are parts of one picture, and which are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SEAM = 0.45
"""Two images whose facing edges differ by less than this share of the edges' own spread are
neighbours in one picture: true neighbours measure up to 0.29, all others 0.63 and more."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """One image with its nuclei."""

    name: str
    image: NDArray[np.uint8]
    """H x W x 3, RGB."""
    labels: NDArray[np.int32]
    """H x W; 0 where there is no nucleus, else its number."""
    picture: str
    """The first image of the larger picture that it was cut from."""

    @property
    def diameter_px(self) -> float:
        """Median over its nuclei of the diameter of a disc of equal area."""
        areas = np.bincount(self.labels.ravel())[1:]
        return float(np.median(np.sqrt(4 / np.pi * areas[areas > 0])))

    @property
    def kind(self) -> str:
        """Which stain, by the colour between the nuclei, and for the largest group which scale."""
        between = np.median(self.image[self.labels == 0], axis=0)
        red, green, blue = (float(value) for value in between)
        if red > blue + 5 and red - green > 40:
            return "pink"
        if green > 170:
            return "white"
        return "purple, small nuclei" if self.diameter_px < 25 else "purple, large nuclei"


@dataclass(frozen=True, slots=True)
class ImageSplit:
    """Names of images; no picture is in two parts."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    """For choices; learned from in the last training."""
    held_out: tuple[str, ...]
    """Looked at when all is chosen."""


def load_images(folder: Path) -> list[LabelledImage]:
    """Read NAME.png with NAME_labels.png, sorted by name."""
    found = []
    for path in sorted(folder.glob("*_labels.png")):
        name = path.name.removesuffix("_labels.png")
        image = cv2.cvtColor(cv2.imread(str(folder / f"{name}.png")), cv2.COLOR_BGR2RGB)
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int32)
        found.append((name, image, labels))
    pictures = find_pictures({name: image for name, image, _ in found})
    return [LabelledImage(*parts, pictures[parts[0]]) for parts in found]


def find_pictures(images: dict[str, NDArray[np.uint8]]) -> dict[str, str]:
    """Name of each image to the first name of those that continue each other at their edges."""
    first = {name: name for name in images}
    for one, a in images.items():
        for other, b in images.items():
            pairs = ((a[:, -1], b[:, 0]), (a[-1], b[0]))
            if one != other and min(_differ(*pair) for pair in pairs) < SEAM:
                low, high = sorted((first[one], first[other]))
                first = {n: low if of == high else of for n, of in first.items()}
    return first


def split_images(
    images: list[LabelledImage], *, seed: int, held_out: float = 0.24, validation: float = 0.12
) -> ImageSplit:
    """Draw whole pictures, kind after kind, until that share of the kind's images is held out.

    Then the same from the rest for validation. A picture is of the kind that most of its images
    are. A kind with fewer than three pictures is never held out, because nothing could be learned
    of it otherwise; it validates.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[str]] = {"train": [], "validation": [], "held_out": []}
    members: dict[str, list[LabelledImage]] = {}
    for image in images:
        members.setdefault(image.picture, []).append(image)
    kinds = {
        name: Counter(sorted(image.kind for image in group)).most_common(1)[0][0]
        for name, group in members.items()
    }
    for kind in sorted(set(kinds.values())):
        pictures = sorted(name for name in members if kinds[name] == kind)
        order = [pictures[n] for n in rng.permutation(len(pictures))]
        count = sum(len(members[name]) for name in pictures)
        if len(pictures) < 3:
            parts["validation"] += [image.name for name in order for image in members[name]]
            continue
        for part, share in (("held_out", held_out), ("validation", validation)):
            taken: list[str] = []
            while len(taken) < share * count:
                taken += [image.name for image in members[order.pop()]]
            parts[part] += taken
        parts["train"] += [image.name for name in order for image in members[name]]
    return ImageSplit(*(tuple(sorted(parts[p])) for p in ("train", "validation", "held_out")))


def deal_folds(images: Sequence[LabelledImage], *, seed: int, count: int) -> list[set[str]]:
    """Names of the images of each fold: whole pictures, kind after kind in an order by seed.

    A picture goes to the fold that has the fewest images so far.
    """
    rng = np.random.default_rng(seed)
    folds: list[set[str]] = [set() for _ in range(count)]
    members: dict[str, list[LabelledImage]] = {}
    for image in images:
        members.setdefault(image.picture, []).append(image)
    for kind in sorted({image.kind for image in images}):
        pictures = sorted(name for name in members if members[name][0].kind == kind)
        for number in rng.permutation(len(pictures)):
            fold = min(folds, key=len)
            fold.update(image.name for image in members[pictures[number]])
    return folds


def _differ(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean difference of two lines of pixels, against how much they vary themselves."""
    if a.shape != b.shape:
        return np.inf
    one, other = a.astype(np.float64), b.astype(np.float64)
    spread = min(float(np.abs(line - line.mean(0)).mean()) for line in (one, other))
    return float(np.abs(one - other).mean()) / max(spread, 3.0)
