"""Cells as an OME-Zarr label image: every pixel of a nucleus has the nucleus's number."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import orjson
import zarr
from numpy.typing import NDArray

from slidetriage.errors import OutputError
from slidetriage.models.nuclei import NucleusTable
from slidetriage.workflows.ledger.stores import note_stored

from .cell_chunks import CellChunk, mend_outlines, open_cells
from .cell_pyramid import CHUNK, Canvas, choose_halvings, write_levels
from .label_frame import NAME, LabelFrame
from .label_places import LabelPlace

_LARGEST_LABEL = 2**32 - 1


def write_cell_labels(
    place: LabelPlace,
    chunks: Iterable[CellChunk],
    frame: LabelFrame,
    *,
    provenance: Mapping[str, object],
) -> int:
    """Draw all cells into a label image; returns how many.

    The label of a cell is its row in the Parquet table plus one. See `CellLabels`.
    """
    _, stream = open_cells(chunks)
    count = 0
    with CellLabels(place, frame, provenance=provenance) as labels:
        for cells in stream:
            labels.draw(cells.table, cells.first_row)
            count += len(cells.table)
    return count


class CellLabels:
    """A label image that cells are drawn into in any order, in a memory of some 200 MB.

    As a context it appears in its place when left, or not at all after an error. NGFF 0.5 has its
    chunks of 1,024 x 1,024 px in shards of 4,096 x 4,096, 0.4 (which QuPath reads) in a file each.
    Chunks without a nucleus are not written; each level's array says under `slidetriage` how many
    files were, so that one that is lost is told from one that never was. Where nuclei overlap, the
    higher label is seen, whatever the order of drawing. A nucleus too small or too thin to hold
    the centre of a pixel has no pixel.

    Coarser levels take every second pixel until no side is over 1,024 px. Beside an image there
    are as many levels as that one has, as NGFF demands: where those are few, pixels are taken
    every fourth or more. Transforms are in micrometres from the top left corner of the whole
    slide, as those of the heatmap are, and place each pixel at the centre of the one that it was
    taken from.

    Parameters
    ----------
    place
        Where the image is to lie: beside a slide's heatmap.zarr, or by itself.
    frame
        The slide, and the size of a label's pixel.
    provenance
        What made the cells, as plain JSON; stands beside the OME metadata under `slidetriage`.

    Raises
    ------
    OutputError
        There is something at that place already.
    """

    def __init__(
        self, place: LabelPlace, frame: LabelFrame, *, provenance: Mapping[str, object]
    ) -> None:
        place.check()
        self._place, self._frame = place, frame
        self._own = orjson.loads(orjson.dumps(dict(provenance), option=orjson.OPT_SORT_KEYS))
        self._halvings = choose_halvings(frame.shape, place.levels)
        shutil.rmtree(place.hidden, ignore_errors=True)
        self._canvas = Canvas(place.hidden / "canvas")

    def draw(self, table: NucleusTable, first_row: int) -> None:
        """Draw nuclei whose rows follow each other from `first_row` on."""
        if first_row + len(table) > _LARGEST_LABEL:
            raise OutputError(f"A label image holds {_LARGEST_LABEL:,} nuclei at most.")
        if not len(table):
            return
        # Imported late: numba takes a second, and those who only read do without.
        from .cell_fill_kernel import fill_outlines

        mended = mend_outlines(table).table
        points = mended.points * np.asarray(self._frame.scale)
        labels = np.arange(first_row + 1, first_row + 1 + len(table), dtype=np.uint32)
        for (row, column), chosen in _by_chunk(points, mended.offsets, self._frame.shape):
            raster = self._canvas.load(row, column)
            corner = (row * CHUNK, column * CHUNK)
            fill_outlines(points, mended.offsets, labels, chosen, raster, corner)
            self._canvas.save(row, column, raster)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            shutil.rmtree(self._place.hidden, ignore_errors=True)

    def _finish(self) -> None:
        made = self._place.hidden / NAME
        group = zarr.create_group(
            made,
            zarr_format=self._place.zarr_format,
            attributes=self._place.attributes(self._frame.multiscale(self._halvings), self._own),
        )
        write_levels(
            group,
            self._frame.shape,
            self._canvas,
            halvings=self._halvings,
            spare=self._place.hidden / "coarser",
        )
        for level in range(len(self._halvings)):
            note_stored(made, f"s{level}")
        self._place.publish(made)


def count_label_pixels(image: Path, *, level: int = 0) -> dict[int, int]:
    """How many pixels each label of a label image has, read chunk by chunk."""
    array = zarr.open_array(image / f"s{level}", mode="r")
    counts: dict[int, int] = {}
    for row in range(0, array.shape[0], CHUNK):
        for column in range(0, array.shape[1], CHUNK):
            block = np.asarray(array[row : row + CHUNK, column : column + CHUNK])
            labels, found = np.unique(block[block > 0], return_counts=True)
            for label, count in zip(labels.tolist(), found.tolist(), strict=True):
                counts[label] = counts.get(label, 0) + count
    return counts


def _by_chunk(
    points: NDArray[np.float64], offsets: NDArray[np.int64], shape: tuple[int, int]
) -> Iterable[tuple[tuple[int, int], NDArray[np.int64]]]:
    """The chunks that nuclei touch, and which ones each is touched by, in order."""
    starts = offsets[:-1]
    most = np.array([shape[1] - 1, shape[0] - 1])
    low = np.minimum.reduceat(points, starts)
    high = np.maximum.reduceat(points, starts)
    inside = ((high >= 0) & (low <= most)).all(axis=1)
    first = (np.clip(low, 0, most) // CHUNK).astype(np.int64)
    spans = (np.clip(high, 0, most) // CHUNK).astype(np.int64) - first + 1
    copies = np.where(inside, spans.prod(axis=1), 0)
    which = np.repeat(np.arange(len(starts)), copies)
    place = np.arange(len(which)) - np.repeat(np.cumsum(copies) - copies, copies)
    columns = first[which, 0] + place % spans[which, 0]
    rows = first[which, 1] + place // spans[which, 0]
    order = np.lexsort((which, columns, rows))
    chunks = np.column_stack([rows, columns])[order]
    ends = np.flatnonzero((np.diff(chunks, axis=0) != 0).any(axis=1)) + 1
    for part in np.split(order, ends):
        if len(part):
            yield (int(rows[part[0]]), int(columns[part[0]])), which[part]
