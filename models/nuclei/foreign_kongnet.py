"""KongNet as TIAToolbox has it: centres of nuclei, outlined by the classical detector's means.

Lv et al.: KongNet: A Multi-headed Deep Learning Model for Detection and Classification of Nuclei in
Histopathology Images, 2025, https://arxiv.org/abs/2510.23559.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.models.precision import Device

from .classical import ClassicalDetector, haematoxylin
from .decoding import grow_seeds
from .foreign_base import ForeignDetector, Image, no_nuclei, number_nuclei, require_finite
from .foreign_card import ForeignCard
from .foreign_toolbox import PublishedNetwork, exact, stitch
from .instances import Instances

_WINDOW_UM = 25.0
"""Half the side of what counts as surroundings; half of the classical detector's, so that the
margin stays well below half a window at 0.25 um/px."""

_REACH = 1.5
"""An outline ends so many usual diameters from its centre."""


class KongNetDetector(ForeignDetector):
    """A `NucleusDetector` that runs TIAToolbox's KongNet, which gives centres and no outlines.

    Centres are the peaks that TIAToolbox's own post-processing finds in the maps of all classes; a
    score is the probability at the peak, and classes are left out. Outlines are not KongNet's: they
    are a watershed from the centres over what the classical detector takes for haematoxylin, and a
    nucleus whose centre lies outside of that becomes a disc of 9 um. They are as coarse as the
    classical detector's, so shapes should not be judged by them. That detector's threshold is the
    image's own, so outlines of two images that share a nucleus may differ a little.

    An image is seen in patches of 256 px, reflected beyond its edges, of which the middle counts
    (TIAToolbox averages where patches overlap). The network pools over each patch, so what lies
    elsewhere in a patch may change a peak.
    """

    def __init__(
        self,
        card: ForeignCard,
        published: PublishedNetwork,
        network: Any,
        *,
        identity: str,
        device: Device,
    ) -> None:
        self._classical = ClassicalDetector(mpp=card.mpp, window_um=_WINDOW_UM)
        least = published.margin_px + self._classical.margin_px
        super().__init__(card, identity=identity, least_margin_px=least)
        self._published, self._device = published, device.name
        self._network = network.to(device.name)
        self._turn = threading.Lock()

    def compute_maps(self, image: Image) -> NDArray[np.float32]:
        """H x W x C of an H x W x 3 RGB image: the probability of a centre, of each class."""
        maps = stitch(image, self._published, self._run)
        require_finite(maps, self.name)
        return maps

    def find_peaks(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """H x W of H x W x C maps: the probability at the centre of a nucleus, 0 elsewhere."""
        with warnings.catch_warnings():
            # TIAToolbox 2.1 reads a property by a name that scikit-image 0.26 calls old.
            warnings.simplefilter("ignore", FutureWarning)
            return np.asarray(self._network.postproc(maps).max(axis=2), np.float32)

    def _find(self, image: Image) -> Instances:
        with self._turn:
            peaks = self.find_peaks(self.compute_maps(image))
        return outline_centres(image, peaks, self._classical)

    def _run(self, patch: Image) -> NDArray[np.float32]:
        x = torch.from_numpy(self._network.preproc(patch))[None]
        with exact():
            found = self._network.infer_batch(self._network, x, device=self._device)
        return np.asarray(found[0], np.float32)


def outline_centres(
    image: Image, peaks: NDArray[np.float32], classical: ClassicalDetector
) -> Instances:
    """Nuclei around the centres of an H x W x 3 RGB image; `peaks` is H x W, above 0 at centres.

    Where a centre lies on haematoxylin its nucleus grows over it as far as the next one's; where it
    does not it is a disc, which covers nothing that is a nucleus already.
    """
    rows, columns = np.nonzero(peaks > 0)
    if not len(rows):
        return no_nuclei(image)
    scores = peaks[rows, columns]
    order = np.argsort(-scores, kind="stable")
    scores, rows, columns = scores[order], rows[order], columns[order]
    diameter = classical.nucleus_um / classical.mpp
    blurred = cv2.GaussianBlur(haematoxylin(image), (0, 0), max(0.5, 0.06 * diameter))
    ground = classical.find_ground(np.asarray(blurred, np.float32), diameter)
    seeds = np.zeros(ground.shape, np.int32)
    seeds[rows, columns] = np.arange(1, len(rows) + 1)
    away = cv2.distanceTransform((seeds == 0).astype(np.uint8), cv2.DIST_L2, 5)
    ground &= np.asarray(away) <= _REACH * diameter
    depth = cv2.distanceTransform(ground.astype(np.uint8), cv2.DIST_L2, 5)
    height = np.clip(np.rint(depth * (8 * 16 / diameter)), 0, 255).astype(np.uint8)
    labels = grow_seeds(height, seeds, ground)
    for number in np.setdiff1d(np.arange(1, len(rows) + 1), labels):
        _draw_disc(labels, int(number), (rows[number - 1], columns[number - 1]), diameter / 2)
    return number_nuclei(labels, np.clip(scores, 0, 1))


def _draw_disc(
    labels: NDArray[np.int32], number: int, centre: tuple[int, int], radius: float
) -> None:
    from skimage.draw import disk

    spot = disk(centre, radius, shape=labels.shape)
    before = labels[spot]
    labels[spot] = np.where(before == 0, number, before)
