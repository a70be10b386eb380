"""What is measured of nuclei, in micrometres and optical density, under the names QuPath uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from slidetriage.errors import ModelError

from .instances import Instances
from .outlines import TOLERANCE_PX, Outlines, simplify_outlines, trace_outlines
from .stain_vectors import StainVectors
from .table import NucleusTable

AREA = "Area um^2"
"""Of the outline as it is given out."""
PERIMETER = "Perimeter um"
"""Of the outline before its corners are dropped, smoothed by one pixel."""
CIRCULARITY = "Circularity"
"""4 pi area / perimeter^2, at most 1."""
ECCENTRICITY = "Eccentricity"
"""Of the ellipse with the same second moments."""
SOLIDITY = "Solidity"
"""Area over that of the convex hull."""
MIN_DIAMETER = "Min diameter um"
"""Smallest caliper (Feret) diameter."""
MAX_DIAMETER = "Max diameter um"
ELLIPSE_DEVIATION = "Ellipse deviation"
"""How far the outline lies off the ellipse with the same second moments, as a share of its radius
(root mean square): the square root of the ellipse variance of Peura and Iivarinen (1997)."""
HAEMATOXYLIN = "Hematoxylin OD mean"
HAEMATOXYLIN_SD = "Hematoxylin OD sd"
EOSIN = "Eosin OD mean"
EOSIN_SD = "Eosin OD sd"
CONTRAST = "Hematoxylin OD contrast"
"""Mean squared difference of pixels half a micrometre apart along rows and columns: the contrast
of Haralick et al. (1973) without its rounding to grey levels."""
ENTROPY = "Hematoxylin OD entropy"
"""Entropy in bits (Haralick et al. 1973) of the same pairs, in steps of 1/8 from 0 to 2."""
NEAREST = "Nearest nucleus um"
"""Distance of centroids."""
NEAREST_3 = "Nearest 3 nuclei mean um"
DENSITY = "Nuclei within 50 um per mm^2"
"""Itself not counted; too low within 50 um of where nuclei were looked for."""
SIZE_SPREAD = "Area spread of nearest 8"
"""Standard deviation of the natural logarithm of the area over a nucleus and its 8 nearest."""

OWN_NAMES = (
    AREA,
    PERIMETER,
    CIRCULARITY,
    ECCENTRICITY,
    SOLIDITY,
    MIN_DIAMETER,
    MAX_DIAMETER,
    ELLIPSE_DEVIATION,
    HAEMATOXYLIN,
    HAEMATOXYLIN_SD,
    EOSIN,
    EOSIN_SD,
    CONTRAST,
    ENTROPY,
)
"""What `measure_nuclei` measures, of each nucleus by itself."""

NEIGHBOUR_NAMES = (NEAREST, NEAREST_3, DENSITY, SIZE_SPREAD)
"""What `measure_neighbours` adds, once all nuclei of a slide are known."""

RADIUS_UM = 50.0
PAIR_UM = 0.5

_NEAR = 8
_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Window:
    """Where on its slide an image lies."""

    left: float
    """Level-0 px of the image's left edge, and of its upper edge."""
    top: float
    scale: tuple[float, float]
    """Level-0 px per pixel of the image, along x and y."""
    mpp: tuple[float, float]
    """Micrometres per level-0 px, along x and y."""

    def __post_init__(self) -> None:
        if not (min(self.scale) > 0 and min(self.mpp) > 0):
            raise ModelError(f"Pixels of {self.scale} level-0 px of {self.mpp} um have no size.")

    @property
    def pixel_um(self) -> NDArray[np.float64]:
        """Size of a pixel of the image in micrometres, along x and y."""
        return np.array(self.scale) * self.mpp


def measure_nuclei(
    pixels: NDArray[np.uint8],
    instances: Instances,
    window: Window,
    *,
    stains: StainVectors | None = None,
    tolerance_px: float = TOLERANCE_PX,
) -> NucleusTable:
    """Outline and measure the nuclei of an H x W x 3 RGB image, each by itself (`OWN_NAMES`)."""
    if pixels.shape != (*instances.labels.shape, 3):
        raise ModelError(
            f"The pixels are {pixels.shape}, the labels {instances.labels.shape}.",
            mend="Give the RGB image in which the nuclei were found.",
        )
    traced = trace_outlines(instances.labels)
    simple = simplify_outlines(traced, tolerance_px)
    columns = _measure_shapes(traced, simple, window.pixel_um)
    columns += _measure_stains(pixels, instances.labels, traced, window.pixel_um, stains)
    points = simple.points * window.scale + (window.left, window.top)
    values = {
        name: np.asarray(column, np.float32)
        for name, column in zip(OWN_NAMES, columns, strict=True)
    }
    return NucleusTable(points, simple.offsets, instances.scores, values)


def measure_neighbours(table: NucleusTable, mpp: tuple[float, float]) -> NucleusTable:
    """Add `NEIGHBOUR_NAMES`; give it all nuclei of a slide at once, `mpp` along x and y."""
    centres = centroids(table.points, table.offsets) * mpp
    added = crowding(centres, table.measurements[AREA])
    return NucleusTable(table.points, table.offsets, table.scores, {**table.measurements, **added})


def crowding(
    centres_um: NDArray[np.float64], area_um2: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """`NEIGHBOUR_NAMES` of nuclei with these centres (N x 2) and areas (N).

    NaN where there are not enough neighbours.
    """
    count = len(centres_um)
    nearest, nearest_3, spread = np.full((3, count), np.nan, np.float32)
    around = np.zeros(count, np.float32)
    area = area_um2.astype(np.float64)
    size = np.log(np.where(area > 0, area, np.nan))
    if count > 1:
        tree = cKDTree(centres_um)
        for first in range(0, count, _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            # One neighbour more than there are is infinitely far, with the number `count`.
            far, who = tree.query(centres_um[part], k=_NEAR + 1)
            far[np.isinf(far)] = np.nan
            nearest[part], nearest_3[part] = far[:, 1], far[:, 1:4].mean(axis=1)
            spread[part] = np.append(size, np.nan)[who].std(axis=1)
            near = tree.query_ball_point(centres_um[part], RADIUS_UM, return_length=True) - 1
            around[part] = near / (np.pi * (RADIUS_UM / 1000) ** 2)
    return dict(zip(NEIGHBOUR_NAMES, (nearest, nearest_3, around, spread), strict=True))


def centroids(points: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """N x 2: centres of area of N simple polygons given as `NucleusTable` gives them."""
    if len(offsets) == 1:
        return np.empty((0, 2))
    starts = offsets[:-1]
    # Relative to each polygon's first corner: far from 0 the products would lose digits.
    origin = points[starts]
    here = points - np.repeat(origin, np.diff(offsets), axis=0)
    following = np.arange(1, len(points) + 1)
    following[offsets[1:] - 1] = starts
    there = here[following]
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    weighted = (here + there) * cross[:, None]
    total = np.add.reduceat(cross, starts)
    return np.asarray(origin + np.add.reduceat(weighted, starts) / (3 * total[:, None]))


def _measure_shapes(
    traced: Outlines, simple: Outlines, pixel_um: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """The first eight of `OWN_NAMES`."""
    from .shape_kernel import shape_rings, span_hulls

    rings, calipers = np.empty((len(traced), 3)), np.empty((len(traced), 2))
    shape_rings(traced.points * pixel_um, traced.offsets, rings)
    perimeter, eccentricity, deviation = rings.T
    polygons = simple.polygons()
    hulls = shapely.convex_hull(polygons)
    area = shapely.area(polygons)
    corners, ring = shapely.get_coordinates(hulls, return_index=True)
    ends = np.searchsorted(ring, np.arange(len(traced) + 1))
    span_hulls(corners * pixel_um, ends, calipers)
    solidity = np.minimum(area / shapely.area(hulls), 1)
    area_um = area * pixel_um.prod()
    circularity = np.minimum(4 * np.pi * area_um / perimeter**2, 1)
    widest, narrowest = calipers.T
    return [
        area_um,
        perimeter,
        circularity,
        eccentricity,
        solidity,
        narrowest,
        widest,
        deviation,
    ]


def _measure_stains(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int32],
    traced: Outlines,
    pixel_um: NDArray[np.float64],
    stains: StainVectors | None,
) -> list[NDArray[np.float64]]:
    """The last six of `OWN_NAMES`."""
    from .shape_kernel import stain_labels

    found = np.empty((len(traced), 6))
    if len(traced):
        starts = traced.offsets[:-1]
        low = np.minimum.reduceat(traced.points, starts).astype(np.int64)
        high = np.ceil(np.maximum.reduceat(traced.points, starts)).astype(np.int64)
        step = np.maximum(np.rint(PAIR_UM / pixel_um), 1).astype(np.int64)
        tables = (stains or StainVectors()).tables()
        stain_labels(labels, pixels, np.hstack([low, high]), tables, step, found)
    return list(found.T)
