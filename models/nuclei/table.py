"""Nuclei of a slide as columns: outlines in level-0 pixels, and what was measured of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from slidetriage.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class NucleusTable:
    """N nuclei; a table of none is allowed."""

    points: NDArray[np.float64]
    """M x 2; x, y in level-0 px of the outlines' corners, nucleus after nucleus, none repeated."""
    offsets: NDArray[np.int64]
    """N + 1; nucleus i has `points[offsets[i] : offsets[i + 1]]`, at least three."""
    scores: NDArray[np.float32]
    """N; how sure the detector is, 0 to 1."""
    measurements: Mapping[str, NDArray[np.float32]]
    """Name with its unit to N values; NaN where one could not be taken."""

    def __post_init__(self) -> None:
        count = len(self.scores)
        lengths = {len(self.offsets) - 1, *map(len, self.measurements.values())}
        if lengths - {count} or self.offsets[-1] != len(self.points):
            raise ModelError(f"The columns of a table of {count} nuclei differ in length.")

    def __len__(self) -> int:
        return len(self.scores)

    def polygons(self) -> NDArray[np.object_]:
        """N shapely polygons."""
        corners = np.diff(self.offsets)
        # A ring of GEOS ends with the point that it began with.
        order = np.insert(np.arange(len(self.points)), self.offsets[1:], self.offsets[:-1])
        ring = np.repeat(np.arange(len(self)), corners + 1)
        rings = shapely.linearrings(self.points[order], indices=ring)
        return np.asarray(shapely.polygons(rings), object)

    def choose(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> NucleusTable:
        """Some of the nuclei, in the order of `chosen`."""
        index = np.arange(len(self))[chosen]
        corners = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(corners)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], corners)
        points = self.points[np.repeat(self.offsets[index], corners) + within]
        values = {name: column[index] for name, column in self.measurements.items()}
        return NucleusTable(points, offsets, self.scores[index], values)


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """How far N nuclei depart from their slide's unremarkable ones, and in what."""

    abnormality: NDArray[np.float32]
    """N; 0 is unremarkable; NaN where it could not be told."""
    classes: NDArray[np.uint8]
    """N; index into `class_names`."""
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    flagged: NDArray[np.bool_]
    """N; whether the nucleus is shown as abnormal."""
    reasons: NDArray[np.int8]
    """N x 3; the strongest first, index into `reason_names`; -1 where there are fewer."""
    reason_names: tuple[str, ...]
    """Such as "enlarged" or "hyperchromatic"."""

    def __len__(self) -> int:
        return len(self.abnormality)

    def choose(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Assessment:
        """Those of some of the nuclei, in the order of `chosen`."""
        return Assessment(
            self.abnormality[chosen],
            self.classes[chosen],
            self.class_names,
            self.class_colors,
            self.flagged[chosen],
            self.reasons[chosen],
            self.reason_names,
        )


def join_tables(tables: Sequence[NucleusTable]) -> NucleusTable:
    """All nuclei of tables with the same measurements, in order."""
    if not tables:
        none = np.empty(0, np.float32)
        return NucleusTable(np.empty((0, 2)), np.zeros(1, np.int64), none, {})
    names = list(tables[0].measurements)
    if any(list(table.measurements) != names for table in tables):
        raise ModelError("Tables with other measurements cannot be joined.")
    corners = np.concatenate([np.diff(table.offsets) for table in tables])
    return NucleusTable(
        np.concatenate([table.points for table in tables]),
        np.concatenate([[0], np.cumsum(corners)]).astype(np.int64),
        np.concatenate([table.scores for table in tables]),
        {name: np.concatenate([t.measurements[name] for t in tables]) for name in names},
    )
