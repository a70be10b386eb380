"""StarDist in 2D: each pixel proposes a star-shaped nucleus, and the surest do not overlap.

Schmidt, Weigert, Broaddus, Myers: Cell Detection with Star-convex Polygons, MICCAI 2018,
https://doi.org/10.1007/978-3-030-00934-2_30.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from .foreign_base import (
    ForeignDetector,
    Image,
    no_nuclei,
    normalise,
    number_nuclei,
    pad,
    require_finite,
)
from .foreign_card import ForeignCard, StarDistSettings
from .foreign_network import Maps, OnnxNetwork, refuse_outputs
from .instances import Instances

_LEAST_RAYS = 3
_SHORTEST_RAY_PX = 1e-3  # as in StarDist's own prediction


class StarDistDetector(ForeignDetector):
    """A `NucleusDetector` that runs a StarDist network exported to ONNX.

    The network gives, on a grid of 1, 2 or 4 px, the probability that a pixel is deep in a nucleus
    and its distance to the border along R rays; either as two outputs or as one of 1 + R channels.
    The number of rays is that of the channels; ray k points at 2 pi k / R from the x axis towards
    the y axis. With `scale` as normalisation a nucleus farther than the margin from an image's
    edges is the same in every image whose corner lies on a multiple of `divisible_by`; with
    percentiles it is nearly so.
    """

    def __init__(self, card: ForeignCard, network: OnnxNetwork, *, identity: str) -> None:
        super().__init__(card, identity=identity, least_margin_px=network.reach_px)
        assert card.stardist is not None  # the card has the settings of its kind
        self._settings = card.stardist
        self._network = network
        channels = sorted(count or 0 for count in network.channels)
        if not (
            (len(channels) == 1 and channels[0] > _LEAST_RAYS)
            or (len(channels) == 2 and channels[0] == 1 and channels[1] >= _LEAST_RAYS)
        ):
            found = f"{len(channels)} outputs of {', '.join(map(str, channels))} channels"
            raise refuse_outputs(card.file, found, "a map of probability and three rays or more")

    def compute_maps(self, image: Image) -> tuple[NDArray[np.float32], Maps]:
        """Probability, h x w, and distances in px, h x w x R, of an H x W x 3 RGB image.

        h is H / grid_px rounded up.
        """
        settings = self._settings
        x = pad(normalise(image, settings.normalisation), multiple=settings.divisible_by)
        maps = self._network(x)
        if len(maps) == 1:
            both = maps[0]
        else:
            both = np.concatenate(sorted(maps, key=lambda each: each.shape[2]), axis=2)
        wanted = tuple(side // settings.grid_px for side in x.shape[:2])
        if both.shape[:2] != wanted:
            found = f"maps of {both.shape[:2]} px for an image of {x.shape[:2]}"
            raise refuse_outputs(self.card.file, found, f"a grid of {settings.grid_px} px, or name")
        require_finite(both, self.name)
        height, width = (-(-side // settings.grid_px) for side in image.shape[:2])
        return both[:height, :width, 0], both[:height, :width, 1:]

    def _find(self, image: Image) -> Instances:
        probability, rays = self.compute_maps(image)
        return decode_stars(probability, rays, image=image, settings=self._settings)


def decode_stars(
    probability: NDArray[np.float32], rays: Maps, *, image: Image, settings: StarDistSettings
) -> Instances:
    """Nuclei of h x w probabilities and h x w x R distances; scores are the probabilities."""
    rows, columns = np.nonzero(probability > settings.probability_threshold)
    if not len(rows):
        return no_nuclei(image)
    scores = probability[rows, columns]
    order = np.argsort(-scores, kind="stable")
    scores, rows, columns = scores[order], rows[order], columns[order]
    centres = np.column_stack([columns, rows]).astype(np.float64) * settings.grid_px
    lengths = np.maximum(rays[rows, columns].astype(np.float64), _SHORTEST_RAY_PX)
    corners = _find_corners(centres, lengths)
    kept = suppress(corners, centres, lengths.min(1), settings)
    labels = _draw(corners[kept], image)
    return number_nuclei(labels, np.clip(scores[kept], 0, 1).astype(np.float32))


def suppress(
    corners: NDArray[np.float64],
    centres: NDArray[np.float64],
    shortest: NDArray[np.float64],
    settings: StarDistSettings,
) -> NDArray[np.intp]:
    """Which of N stars stay, surest first: each drops those after it that it overlaps too much.

    `corners` is N x R x 2 (x, y), in falling order of score, `centres` N x 2 and `shortest` N. Only
    stars whose bounding boxes meet are compared. Where overlap is a share of the smaller one, those
    that have their centre within the shortest ray are dropped without comparing, as StarDist's own
    library does.
    """
    stars = shapely.polygons(corners)
    areas = shapely.area(stars)
    tree = shapely.STRtree(stars)
    alive = np.ones(len(stars), np.bool_)
    kept = []
    for number, star in enumerate(stars):
        if not alive[number]:
            continue
        kept.append(number)
        near = tree.query(star)
        near = near[(near > number) & alive[near]]
        if settings.overlap == "smaller":
            away = np.hypot(*(centres[near] - centres[number]).T)
            alive[near[away < shortest[number]]] = False
            near = near[away >= shortest[number]]
            whole = np.minimum(areas[near], areas[number])
        shared = shapely.area(shapely.intersection(star, stars[near]))
        if settings.overlap == "union":
            whole = areas[near] + areas[number] - shared
        alive[near[shared > settings.nms_threshold * whole]] = False
    return np.asarray(kept, np.intp)


def _find_corners(
    centres: NDArray[np.float64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """N x R x 2 (x, y) of centres, N x 2, and rays, N x R."""
    angles = np.arange(lengths.shape[1]) * (2 * np.pi / lengths.shape[1])
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    return np.asarray(centres[:, None] + lengths[..., None] * directions)


def _draw(corners: NDArray[np.float64], image: Image) -> NDArray[np.int32]:
    """H x W labels; a pixel belongs to the first star that its centre lies in."""
    from skimage.draw import polygon

    labels = np.zeros(image.shape[:2], np.int32)
    for number, star in enumerate(corners, 1):
        spot = polygon(star[:, 1], star[:, 0], labels.shape)
        before = labels[spot]
        labels[spot] = np.where(before == 0, number, before)
    return labels
