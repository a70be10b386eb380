"""Cells as an OME-Zarr label image: every pixel of a nucleus has the nucleus's number."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
import zarr
from numpy.typing import NDArray

from slidetriage.errors import OutputError
from slidetriage.models.nuclei import NucleusTable

from .cell_chunks import CellChunk, mend_outlines, open_cells
from .cell_pyramid import CHUNK, Canvas, choose_halvings, write_levels

NAME = "nuclei"
"""Of the label image, within the group `labels`."""

_LARGEST_LABEL = 2**32 - 1


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """The slide, and the pixels that its nuclei were found in."""

    width_px: float
    """Of the slide, in level-0 px."""
    height_px: float
    mpp_x: float
    """um per level-0 px."""
    mpp_y: float
    mpp: float
    """um per pixel of the label image: the detector's."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the label image.

        >>> LabelFrame(1000, 501, 0.25, 0.25, 0.5).shape
        (251, 500)
        """
        # Less than a millionth of a pixel is rounding, no pixel of its own.
        rows = ceil(self.height_px * self.mpp_y / self.mpp - 1e-6)
        columns = ceil(self.width_px * self.mpp_x / self.mpp - 1e-6)
        return max(rows, 1), max(columns, 1)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the label image per level-0 px, in x and y."""
        return self.mpp_x / self.mpp, self.mpp_y / self.mpp


def write_cell_labels(
    group: Path,
    chunks: Iterable[CellChunk],
    frame: LabelFrame,
    *,
    provenance: Mapping[str, object],
) -> int:
    """Draw all cells into `labels/nuclei` of an OME-Zarr group; returns how many.

    The label of a cell is its row in the Parquet table plus one. See `CellLabels`.
    """
    _, stream = open_cells(chunks)
    count = 0
    with CellLabels(group, frame, provenance=provenance) as labels:
        for cells in stream:
            labels.draw(cells.table, cells.first_row)
            count += len(cells.table)
    return count


class CellLabels:
    """A label image that cells are drawn into in any order, in a memory of some 200 MB.

    As a context it appears as `labels/nuclei` of the group when left, or not at all after an
    error. It is of the group's version: NGFF 0.5 has its chunks of 1,024 x 1,024 px in shards of
    4,096 x 4,096, 0.4 (which QuPath reads) in a file each. Chunks without a nucleus are not
    written. Where nuclei overlap, the higher label is seen, whatever the order of drawing. A
    nucleus too small or too thin to hold the centre of a pixel has no pixel.

    Coarser levels take every second pixel until no side is over 1,024 px. There are as many
    levels as the image beside has, as NGFF demands: where those are few, pixels are taken every
    fourth or more. Transforms are in micrometres from the top left corner of the whole slide, as
    those of the heatmap are, and place each pixel at the centre of the one that it was taken from.

    Parameters
    ----------
    group
        The OME-Zarr image that the labels lie beside: a slide's heatmap.zarr.
    frame
        The slide, and the size of a label's pixel.
    provenance
        What made the cells, as plain JSON; stands beside the OME metadata under `slidetriage`.

    Raises
    ------
    OutputError
        There is no OME-Zarr group at that path, or it has such labels already.
    """

    def __init__(self, group: Path, frame: LabelFrame, *, provenance: Mapping[str, object]) -> None:
        self._frame = frame
        self._own = orjson.loads(orjson.dumps(dict(provenance), option=orjson.OPT_SORT_KEYS))
        self._group = group
        self._format, levels = _read_group(group)
        self._halvings = choose_halvings(frame.shape, levels)
        if (group / "labels" / NAME).exists():
            raise OutputError(
                f"There are {NAME} in {group.name} already.", mend="Write to a new directory."
            )
        self._hidden = group / f".writing-{NAME}"
        shutil.rmtree(self._hidden, ignore_errors=True)
        self._canvas = Canvas(self._hidden / "canvas")

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
            shutil.rmtree(self._hidden, ignore_errors=True)

    def _finish(self) -> None:
        made = zarr.create_group(
            self._hidden / NAME, zarr_format=self._format, attributes=self._attributes()
        )
        write_levels(
            made,
            self._frame.shape,
            self._canvas,
            halvings=self._halvings,
            spare=self._hidden / "coarser",
        )
        labels = zarr.open_group(self._group / "labels", mode="a", zarr_format=self._format)
        (self._hidden / NAME).rename(self._group / "labels" / NAME)
        if self._format == 3:
            known: Any = labels.attrs.get("ome", {})
            names = sorted({*known.get("labels", ()), NAME})
            labels.attrs["ome"] = {"version": "0.5", **known, "labels": names}
        else:
            already: Any = labels.attrs.get("labels", ())
            labels.attrs["labels"] = sorted({*already, NAME})

    def _attributes(self) -> dict[str, Any]:
        multiscale: dict[str, Any] = {
            "name": NAME,
            "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in ("y", "x")],
            "datasets": [
                {"path": f"s{level}", "coordinateTransformations": self._transforms(halved)}
                for level, halved in enumerate(self._halvings)
            ],
            "type": "nearest",
            "metadata": {
                "description": "Every second pixel, once or more, of the level before.",
                "method": "slidetriage.workflows.cells.cell_labels",
            },
        }
        image: dict[str, Any] = {
            "multiscales": [multiscale],
            "image-label": {"source": {"image": "../../"}},
        }
        if self._format == 3:
            return {"ome": {"version": "0.5", **image}, "slidetriage": self._own}
        multiscale["version"] = image["image-label"]["version"] = "0.4"
        return {**image, "slidetriage": self._own}

    def _transforms(self, halved: int) -> list[dict[str, object]]:
        size_um = self._frame.mpp * 2**halved
        # The centre of the first pixel of the finest level, from which all levels took theirs;
        # the origin is the centre of the first level-0 pixel.
        y_um = (self._frame.mpp - self._frame.mpp_y) / 2
        x_um = (self._frame.mpp - self._frame.mpp_x) / 2
        return [
            {"type": "scale", "scale": [size_um, size_um]},
            {"type": "translation", "translation": [y_um, x_um]},
        ]


def count_label_pixels(group: Path, *, level: int = 0) -> dict[int, int]:
    """How many pixels each label of `labels/nuclei` has, read chunk by chunk."""
    array = zarr.open_array(group / "labels" / NAME / f"s{level}", mode="r")
    counts: dict[int, int] = {}
    for row in range(0, array.shape[0], CHUNK):
        for column in range(0, array.shape[1], CHUNK):
            block = np.asarray(array[row : row + CHUNK, column : column + CHUNK])
            labels, found = np.unique(block[block > 0], return_counts=True)
            for label, count in zip(labels.tolist(), found.tolist(), strict=True):
                counts[label] = counts.get(label, 0) + count
    return counts


def _read_group(group: Path) -> tuple[Any, int | None]:
    """The zarr format of a group, and how many levels its image has, if it is one."""
    try:
        opened = zarr.open_group(group, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise OutputError(
            f"{group.name}: there is no OME-Zarr image to lay labels beside.",
            mend="Write the heatmap first.",
        ) from error
    attributes: Any = opened.attrs.get("ome", opened.attrs)
    scales = attributes.get("multiscales")
    return opened.metadata.zarr_format, len(scales[0]["datasets"]) if scales else None


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
