"""From the network's two maps to nuclei: peaks of depth, grown over what is nucleus."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .instances import Instances

Map = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How maps become nuclei; maps hold 0 to 255 for 0 to 1."""

    inside: int = 105
    """A pixel is nucleus from this on."""
    certainty: int = 180
    """What is less inside on average is dropped: stained debris is, and blurred nuclei."""
    dip: int = 64
    """Two peaks are two nuclei if depth falls by this between them. Along a thin nucleus it falls
    by half of that and rises again where the network is in doubt where the centre is."""
    least_peak: int = 20
    """What is nowhere as deep as this is no nucleus."""
    soften: float = 0.6
    """Standard deviation in px of the blur before peaks are sought."""
    least_area_px: int = 24
    """Smaller finds are dropped: a lymphocyte at 0.5 um/px has some 140."""
    hole_px: int = 40
    """Smaller holes are filled."""

    def decode(self, inside: Map, depth: Map) -> Instances:
        """Find nuclei in two maps of H x W."""
        if inside.size == 0:
            return Instances(np.zeros(inside.shape, np.int32), np.zeros(0, np.float32))
        ground = self._fill_holes(inside)
        soft = depth
        if self.soften > 0:
            soft = np.asarray(cv2.GaussianBlur(depth, (0, 0), self.soften), np.uint8)
        labels = split_ground(soft, ground, dip=self.dip, least=self.least_peak)
        return self._select(labels, inside)

    def _fill_holes(self, inside: Map) -> NDArray[np.bool_]:
        ground = (inside >= self.inside).view(np.uint8)
        rings, ranks = cv2.findContours(ground, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        # The last column names the ring around: only holes have one.
        numbers = np.flatnonzero(ranks[0, :, 3] >= 0).tolist() if rings else []
        holes = [rings[number] for number in numbers]
        small = [hole for hole in holes if cv2.contourArea(hole) <= self.hole_px]
        if small:
            cv2.drawContours(ground, small, -1, 1, cv2.FILLED)
        return ground.view(np.bool_)

    def _select(self, labels: NDArray[np.int32], inside: Map) -> Instances:
        """Drop specks and what is doubtful, number the rest, and score each by its mean inside."""
        from .flood_kernel import measure

        sums = np.zeros((int(labels.max(initial=0)) + 1, 2), np.int64)
        measure(labels, inside, sums)
        keep = sums[:, 0] >= self.least_area_px
        keep &= sums[:, 1] >= self.certainty * sums[:, 0]
        keep[0] = False
        numbers = np.zeros(len(sums), np.int32)
        numbers[keep] = np.arange(1, np.count_nonzero(keep) + 1)
        scores = sums[keep, 1] / (255 * np.maximum(sums[keep, 0], 1))
        return Instances(numbers[labels], scores.astype(np.float32))


def split_ground(
    height: Map, ground: NDArray[np.bool_], *, dip: int, least: int = 0
) -> NDArray[np.int32]:
    """Watershed of H x W ground, through sides only, one part for each peak that stands out.

    A peak stands out if on every way to a higher one the height falls by `dip`, the highest of
    each connected part of the ground in any case; `least` is the lowest that counts.
    """
    from .flood_kernel import flood, mark_peaks

    framed, labels = _frame(height, ground)
    mark_peaks(framed, dip, least, labels)
    flood(framed, labels)
    return _unframe(labels)


def grow_seeds(
    height: Map, seeds: NDArray[np.int32], ground: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Watershed downhill from the seeds over the ground, through sides only; H x W."""
    from .flood_kernel import flood

    framed, labels = _frame(height, ground)
    inner = labels[1:-1, 1:-1]
    planted = ground & (seeds > 0)
    inner[planted] = seeds[planted]
    flood(framed, labels)
    return _unframe(labels)


def _frame(height: Map, ground: NDArray[np.bool_]) -> tuple[Map, NDArray[np.int32]]:
    """Both with a pixel of nothing around, so that every pixel has four neighbours."""
    rows, columns = height.shape
    framed = np.zeros((rows + 2, columns + 2), np.uint8)
    framed[1:-1, 1:-1] = height
    labels = np.zeros(framed.shape, np.int32)
    np.negative(ground.view(np.int8), out=labels[1:-1, 1:-1], casting="unsafe")
    return framed, labels


def _unframe(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Without the frame, and 0 where nothing grew."""
    return np.maximum(labels[1:-1, 1:-1], 0)
