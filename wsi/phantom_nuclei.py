"""The phantom's nuclei: size, shape and shade of each, and the stamps they are drawn with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .phantom_fields import Floats, periodic_noise, ramp

VARIANTS = 12
"""Stamps of each kind."""

STAMP_PX = 64
STAMP_RADIUS_PX = 25.0
"""Half the width of a stamp's unperturbed circle."""


class NucleusKind(IntEnum):
    """What a nucleus belongs to."""

    STROMA = 0
    """Fibroblast, endothelium or fat cell: a thin spindle."""
    GLAND = 1
    """Normal epithelium: small, regular."""
    LYMPHOCYTE = 2
    """Round, about 7 um, dark."""
    TUMOUR = 3
    """A tumour cell of moderate size."""
    ABNORMAL = 4
    """A tumour cell that is enlarged, irregular and hyperchromatic."""


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """N nuclei, ordered from the top of the slide to its bottom.

    A nucleus is drawn as an ellipse whose radius is perturbed by a few waves, by at most 8 % of
    the radius, or 20 % for the kind ABNORMAL; the area of the ellipse is kept.
    """

    centres_um: NDArray[np.float64]
    """N x 2: x, y from the slide's top left corner."""
    semi_axes_um: Floats
    """N x 2: the longer, the shorter."""
    angle: Floats
    """N; radians from the x axis to the longer axis, towards +y (down)."""
    kind: NDArray[np.uint8]
    """N; a `NucleusKind`."""
    shade: Floats
    """N; how much haematoxylin it holds, as optical density."""
    variant: NDArray[np.uint8]
    """N; which stamp of its kind it is drawn with."""

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Nuclei:
        return Nuclei(
            self.centres_um[chosen],
            self.semi_axes_um[chosen],
            self.angle[chosen],
            self.kind[chosen],
            self.shade[chosen],
            self.variant[chosen],
        )

    def near(self, x_um: tuple[float, float], y_um: tuple[float, float]) -> Nuclei:
        """Those whose centre lies in the rectangle."""
        first, last = np.searchsorted(self.centres_um[:, 1], y_um)
        x = self.centres_um[first:last, 0]
        return self[first + np.flatnonzero((x >= x_um[0]) & (x <= x_um[1]))]


_LOOK: dict[NucleusKind, tuple[float, float, float, float, float]] = {
    # semi-axes in um: mean of the longer, its log-sd, shorter/longer; shade: mean and sd.
    NucleusKind.STROMA: (5.0, 0.28, 0.30, 0.55, 0.12),
    NucleusKind.GLAND: (3.8, 0.10, 0.76, 0.60, 0.08),
    NucleusKind.LYMPHOCYTE: (3.4, 0.08, 0.92, 0.78, 0.10),
    NucleusKind.TUMOUR: (4.7, 0.13, 0.76, 0.50, 0.10),
    NucleusKind.ABNORMAL: (6.2, 0.15, 0.74, 0.68, 0.13),
}


def draw_nuclei(
    rng: np.random.Generator, centres_um: NDArray[np.floating], angle: Floats, kind: NucleusKind
) -> Nuclei:
    """Nuclei of one kind at N x 2 centres, of random size and shade."""
    count = len(centres_um)
    mean, spread, ratio, dark, dark_spread = _LOOK[kind]
    longer = mean * np.exp(rng.normal(0, spread, count))
    shorter = longer * np.clip(rng.normal(ratio, 0.08, count), 0.18, 0.98)
    return Nuclei(
        np.asarray(centres_um, np.float64),
        np.stack([longer, shorter], 1).astype(np.float32),
        np.asarray(angle, np.float32),
        np.full(count, kind, np.uint8),
        np.clip(rng.normal(dark, dark_spread, count), 0.3, 1.3).astype(np.float32),
        rng.integers(0, VARIANTS, count).astype(np.uint8),
    )


def gather_nuclei(groups: list[Nuclei]) -> Nuclei:
    """All `groups` in one, without those that overlap one of an earlier group or place."""
    every = Nuclei(
        np.concatenate([g.centres_um for g in groups]),
        np.concatenate([g.semi_axes_um for g in groups]),
        np.concatenate([g.angle for g in groups]),
        np.concatenate([g.kind for g in groups]),
        np.concatenate([g.shade for g in groups]),
        np.concatenate([g.variant for g in groups]),
    )
    if len(every) > 1:
        every = every[~_crowded(every)]
    return every[np.lexsort((every.centres_um[:, 0], every.centres_um[:, 1]))]


def cut_stamps(rng: np.random.Generator) -> Floats:
    """Kinds x variants x 64 x 64 x 2: how much of a pixel is nucleus, and its haematoxylin."""
    bank = np.empty((len(NucleusKind), VARIANTS, STAMP_PX, STAMP_PX, 2), np.float32)
    for kind in NucleusKind:
        for variant in range(VARIANTS):
            bank[kind, variant] = _stamp(rng, kind)
    return bank


def _crowded(nuclei: Nuclei) -> NDArray[np.bool_]:
    """True for each nucleus that overlaps an earlier one by more than a touch."""
    reach = np.sqrt(nuclei.semi_axes_um.prod(1))
    pairs = cKDTree(nuclei.centres_um).query_pairs(2 * float(reach.max()), output_type="ndarray")
    apart = np.linalg.norm(nuclei.centres_um[pairs[:, 0]] - nuclei.centres_um[pairs[:, 1]], axis=1)
    clash = pairs[apart < 0.88 * reach[pairs].sum(1)]
    crowded = np.zeros(len(nuclei), np.bool_)
    crowded[clash.max(1)] = True
    return crowded


def _stamp(rng: np.random.Generator, kind: NucleusKind) -> Floats:
    middle = (STAMP_PX - 1) / 2
    y, x = (np.indices((STAMP_PX, STAMP_PX), np.float32) - middle) / STAMP_RADIUS_PX
    theta = np.arctan2(y, x)
    limit = 0.20 if kind is NucleusKind.ABNORMAL else 0.08
    waves = np.arange(2, 6)
    height, phase = rng.uniform(0.3, 1.0, 4) / waves, rng.uniform(0, 2 * np.pi, 4)
    bulge = (height * np.cos(waves * theta[..., None] + phase)).sum(-1)
    outline = 1 + limit * bulge / height.sum()
    # Keeps the area: the mean of the squared radius over all directions is 1.
    outline /= np.sqrt(1 + 0.5 * ((limit * height / height.sum()) ** 2).sum())
    depth = (outline - np.hypot(x, y)).astype(np.float32)
    cover = ramp(depth, -0.07, 0.07)
    clumps = periodic_noise(rng, (STAMP_PX, STAMP_PX), (3.2, 3.2))
    rim = 1 - ramp(depth, 0.0, 0.22)
    density = _chromatin(rng, kind, clumps, rim)
    if kind in (NucleusKind.TUMOUR, NucleusKind.ABNORMAL):
        for _ in range(rng.integers(1, 3)):
            u, v = rng.uniform(-0.45, 0.45, 2)
            density += 0.55 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 0.11**2))
    density = cv2.GaussianBlur(np.clip(density, 0.25, 1.8).astype(np.float32), (0, 0), 1.0)
    return np.dstack([cover, cover * density])


def _chromatin(
    rng: np.random.Generator, kind: NucleusKind, clumps: Floats, rim: Floats
) -> NDArray[np.floating]:
    if kind is NucleusKind.LYMPHOCYTE:
        return 0.95 + 0.16 * clumps + 0.1 * rim
    if kind is NucleusKind.STROMA:
        return 1.0 + 0.10 * clumps + 0.1 * rim
    if kind is NucleusKind.GLAND:
        return 0.88 + 0.13 * clumps + 0.35 * rim
    # Some tumour nuclei are vesicular: pale inside, chromatin pushed to the membrane.
    pale = rng.uniform(0.55, 0.95)
    return np.asarray(pale + 0.22 * clumps + (0.88 - 0.6 * pale) * rim)
