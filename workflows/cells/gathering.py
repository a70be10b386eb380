"""All nuclei of a slide: each once, compared with the slide's own, and handed out in parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from slidetriage.models.nuclei import Assessment, NucleusTable
from slidetriage.models.nuclei.abnormality import fit_reference
from slidetriage.models.nuclei.classifier import read_classifier
from slidetriage.models.nuclei.measuring import AREA, OWN_NAMES, centroids, crowding
from slidetriage.models.nuclei.pixel_quality import PixelBlocks
from slidetriage.wsi import Mpp

from .cell_chunks import CellChunk
from .parts import BEYOND, WITHIN, Part, iterate_parts, list_parts, read_part

SAME = 0.3
"""Overlap, as a share of the smaller, from which two outlines of different windows are one nucleus;
within a window outlines do not overlap at all."""

Columns = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class GatheredCells:
    """The nuclei of a slide without their outlines, which stay on disk."""

    staging: Path
    kept: NDArray[np.bool_]
    """Of all nuclei in the parts, those that count: within the areas, and each once."""
    part_ends: NDArray[np.int64]
    """How many nuclei there are in the parts up to each; begins with 0."""
    centres_px: NDArray[np.float64]
    """N x 2, level-0 px; of those that count, as everything below."""
    measurements: Columns
    added: tuple[str, ...]
    """Names of the measurements that the parts do not have."""
    assessment: Assessment
    missing: NDArray[np.int32]
    """Windows that could not be read."""
    blocks: PixelBlocks
    """What the pixels were like where nuclei were looked for."""

    def __len__(self) -> int:
        return len(self.centres_px)

    def chunks(self) -> Iterator[CellChunk]:
        """Outlines and all, a part in memory at a time; may be asked for again and again."""
        done = 0
        parts = zip(list_parts(self.staging), pairwise(self.part_ends.tolist()), strict=True)
        for path, (first, last) in parts:
            kept = self.kept[first:last]
            table = read_part(path).table.choose(kept)
            here = slice(done, done + len(table))
            done += len(table)
            values = {name: column[here] for name, column in self.measurements.items()}
            whole = NucleusTable(table.points, table.offsets, table.scores, values)
            yield whole, self.assessment.choose(np.arange(here.start, here.stop))


def gather_cells(
    staging: Path, area: BaseGeometry, mpp: Mpp, *, classifier: str = ""
) -> GatheredCells:
    """Bring the parts of a slide together.

    Parameters
    ----------
    area
        Where nuclei were looked for, in level-0 px; those centred elsewhere do not count.
    classifier
        File of a trained classifier in place of the rule.
    """
    parts = [_summarise(part) for part in iterate_parts(staging)]
    ends = np.cumsum([0, *(len(part.scores) for part in parts)])
    centres = np.concatenate([part.centres for part in parts] or [np.empty((0, 2))])
    scores = np.concatenate([part.scores for part in parts] or [np.empty(0, np.float32)])
    shapely.prepare(area)
    kept = np.asarray(shapely.contains_xy(area, centres[:, 0], centres[:, 1]), np.bool_)
    kept &= ~_seen_twice(parts, ends, scores)
    full = [part for part in parts if len(part.scores)]
    none = [np.empty(0, np.float32)]
    measured = {
        name: np.concatenate([part.measurements[name] for part in full] or none)[kept]
        for name in OWN_NAMES
    }
    centres = centres[kept]
    neighbours = crowding(centres * (mpp.x, mpp.y), measured[AREA])
    columns = {**measured, **neighbours}
    assessor = read_classifier(Path(classifier)) if classifier else fit_reference(columns)
    missing = np.concatenate([part.missing for part in parts] or [np.empty(0, np.int32)])
    return GatheredCells(
        staging=staging,
        kept=kept,
        part_ends=ends.astype(np.int64),
        centres_px=centres,
        measurements=columns,
        added=tuple(neighbours),
        assessment=assessor.assess(columns),
        missing=missing,
        blocks=_choose_blocks(parts, area),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Summary:
    """A part without its outlines, but for those at seams."""

    centres: NDArray[np.float64]
    scores: NDArray[np.float32]
    measurements: Columns
    seam: NDArray[np.intp]
    """Which nuclei a neighbouring window may have as well."""
    beyond: NDArray[np.bool_]
    """Of these, which have their centre beyond their window's core."""
    outlines: NDArray[np.object_]
    """Of these."""
    missing: NDArray[np.int32]
    blocks: PixelBlocks


def _choose_blocks(parts: list[_Summary], area: BaseGeometry) -> PixelBlocks:
    """Those whose centre lies in the area."""
    blocks = PixelBlocks.join(part.blocks for part in parts)
    inside = shapely.contains_xy(area, blocks.centres[:, 0], blocks.centres[:, 1])
    return blocks.choose(np.asarray(inside, np.bool_))


def _summarise(part: Part) -> _Summary:
    table = part.table
    seam = np.flatnonzero(part.place != WITHIN)
    return _Summary(
        centroids(table.points, table.offsets),
        table.scores,
        table.measurements,
        seam,
        part.place[seam] == BEYOND,
        table.choose(seam).polygons() if len(seam) else np.empty(0, object),
        part.missing,
        part.blocks,
    )


def _seen_twice(
    parts: list[_Summary], ends: NDArray[np.int64], scores: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Of all nuclei, those that a better one of another window stands for."""
    twice = np.zeros(int(ends[-1]), np.bool_)
    if not len(twice):
        return twice
    index = np.concatenate([part.seam + first for part, first in zip(parts, ends, strict=False)])
    outlines = np.concatenate([part.outlines for part in parts])
    beyond = np.concatenate([part.beyond for part in parts])
    # First what lies in its own window's core, then the surer; of equals what comes first.
    order = np.lexsort((index, -scores[index], beyond))
    index, outlines = index[order], outlines[order]
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    pairs = first < second
    first, second = first[pairs], second[pairs]
    common = shapely.area(shapely.intersection(outlines[first], outlines[second]))
    smaller = np.minimum(shapely.area(outlines[first]), shapely.area(outlines[second]))
    same = common > SAME * smaller
    lost = np.zeros(len(index), np.bool_)
    chosen = np.lexsort((second[same], first[same]))
    for better, worse in zip(first[same][chosen], second[same][chosen], strict=True):
        if not lost[better]:
            lost[worse] = True
    twice[index[lost]] = True
    return twice
