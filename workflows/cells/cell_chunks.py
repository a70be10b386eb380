"""Cells on their way to files: chunk after chunk, numbered, with outlines fit to be written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from slidetriage.errors import ModelError, OutputError, SlideTriageError
from slidetriage.models.nuclei import Assessment, NucleusTable
from slidetriage.workflows.geojson import GRID_PX, settle_shape

CellChunk: TypeAlias = tuple[NucleusTable, Assessment]
"""Some of a slide's nuclei and what is thought of them; all chunks have the same columns."""

SCORE, ABNORMALITY, FLAGGED = "Detection score", "Abnormality", "Flagged"
"""What QuPath shows beside the measurements."""

TABLE_COLUMNS = (
    "label", "geometry", "bbox", "class", "flagged", "abnormality", "score", "reasons",
)  # fmt: skip
"""What the Parquet table has beside the measurements."""

_PIECE = 16_384  # cells handled at once, however large the chunks are
_BETWEEN_REASONS = "; "


@dataclass(frozen=True, slots=True)
class CellColumns:
    """What all chunks of a slide have in common."""

    measurements: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    class_colors: tuple[tuple[int, int, int], ...] = ()
    reason_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: NucleusTable, assessment: Assessment) -> CellColumns:
        """The columns of one chunk."""
        return cls(
            tuple(table.measurements),
            assessment.class_names,
            assessment.class_colors,
            assessment.reason_names,
        )

    def check(self) -> None:
        """Raise `ModelError` for names that would be mistaken for others in the files."""
        taken = {SCORE, ABNORMALITY, FLAGGED, *TABLE_COLUMNS}.intersection(self.measurements)
        if taken:
            raise ModelError(
                f"A measurement cannot be called {', '.join(sorted(taken))}.",
                mend="Give it another name: the files have a column of that name.",
            )
        if any(";" in name for name in self.reason_names):
            raise ModelError("A reason has a semicolon in its name.", mend="Choose another name.")

    def record(self) -> dict[str, object]:
        """As plain JSON, for the head of a file."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> CellColumns:
        """The columns that a file's head tells of."""
        colors = tuple((r, g, b) for r, g, b in record["class_colors"])
        names = (tuple(record[key]) for key in ("measurements", "class_names", "reason_names"))
        measurements, classes, reasons = names
        return cls(measurements, classes, colors, reasons)

    def reasons_of(self, assessment: Assessment) -> list[str]:
        """The reasons of each nucleus, the strongest first, as one text; empty without any."""
        kinds, which = np.unique(assessment.reasons, axis=0, return_inverse=True)
        texts = [
            _BETWEEN_REASONS.join(self.reason_names[code] for code in kind if code >= 0)
            for kind in kinds
        ]
        return [texts[index] for index in which.ravel()]

    def reason_codes(self, texts: Iterable[str]) -> NDArray[np.int8]:
        """N x 3, as `Assessment` has them, from the texts of `reasons_of`."""
        known = {name: code for code, name in enumerate(self.reason_names)}
        rows = [[known[name] for name in text.split(_BETWEEN_REASONS) if name] for text in texts]
        padded = [(*row, -1, -1, -1)[:3] for row in rows]
        return np.array(padded, np.int8).reshape(-1, 3)


@dataclass(frozen=True, slots=True, eq=False)
class NumberedCells:
    """Cells that follow each other in the stream."""

    first_row: int
    """How many cells came before them; the label of a cell is its row plus one."""
    table: NucleusTable
    assessment: Assessment


@dataclass(frozen=True, slots=True, eq=False)
class MendedOutlines:
    """Outlines on QuPath's grid of 0.01 px, each one valid polygon."""

    table: NucleusTable
    shapes: NDArray[np.object_]
    """N shapely polygons."""
    sound: NDArray[np.bool_]
    """N; false where nothing was left on that grid: the outline is only rounded there."""


def open_cells(chunks: Iterable[CellChunk]) -> tuple[CellColumns, Iterator[NumberedCells]]:
    """What the chunks have in common, and their cells in pieces of a bounded size.

    Raises
    ------
    ModelError
        Now or while the cells are drawn: the columns of a chunk are not those of the first, or
        are not fit for the files.
    """
    stream = iter(chunks)
    first = next(stream, None)
    if first is None:
        return CellColumns(), iter(())
    columns = CellColumns.of(*first)
    columns.check()
    return columns, _number(chain([first], stream), columns)


def _number(chunks: Iterable[CellChunk], columns: CellColumns) -> Iterator[NumberedCells]:
    row = 0
    for table, assessment in chunks:
        if len(table) != len(assessment):
            raise ModelError(f"{len(table)} nuclei were assessed as {len(assessment)}.")
        if CellColumns.of(table, assessment) != columns:
            raise ModelError("The nuclei of one slide were measured in different ways.")
        if len(table) and assessment.classes.max() >= len(columns.class_names):
            raise ModelError("A nucleus has a class without a name.")
        for start in range(0, len(table), _PIECE):
            piece = np.arange(start, min(start + _PIECE, len(table)))
            whole = len(piece) == len(table)
            part = (table, assessment) if whole else (table.choose(piece), assessment.choose(piece))
            yield NumberedCells(row + start, *part)
        row += len(table)


def mend_outlines(
    table: NucleusTable, origin_px: tuple[float, float] = (0.0, 0.0)
) -> MendedOutlines:
    """Move outlines to where QuPath's image begins, round to 0.01 px, and repair what is invalid.

    Of an outline that falls apart the largest piece is kept, without its holes: a nucleus has one
    outline. Raises `ModelError` where a coordinate is not finite.
    """
    points = np.round(table.points - np.asarray(origin_px), 2)
    if not np.isfinite(points).all():
        raise ModelError("The outline of a nucleus has a corner that is nowhere.")
    rounded = replace(table, points=points)
    shapes = rounded.polygons()
    sound = shapely.is_valid(shapes) & (shapely.area(shapes) >= GRID_PX)
    broken = np.flatnonzero(~sound)
    if not len(broken):
        return MendedOutlines(rounded, shapes, sound)
    for row in broken:
        parts = shapely.get_parts(settle_shape(shapes[row], (0.0, 0.0)))
        if len(parts):
            largest = parts[np.argmax(shapely.area(parts))]
            corners = np.round(shapely.get_coordinates(largest.exterior), 2)
            shapes[row], sound[row] = shapely.Polygon(corners), True
    return MendedOutlines(replace_outlines(rounded, shapes), shapes, sound)


def replace_outlines(table: NucleusTable, shapes: NDArray[np.object_]) -> NucleusTable:
    """The same nuclei with the outer rings of N polygons as their outlines."""
    rings = shapely.get_exterior_ring(shapes)
    ends = np.cumsum(shapely.get_num_coordinates(rings))
    points = shapely.get_coordinates(rings)
    # A ring of GEOS ends with the point that it began with.
    points = np.delete(points, ends - 1, axis=0)
    offsets = np.concatenate([[0], ends - np.arange(1, len(ends) + 1)]).astype(np.int64)
    return replace(table, points=points, offsets=offsets)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden path beside `path`, moved there once all is written; nothing is left otherwise."""
    hidden = path.with_name(f".writing-{path.name}")
    try:
        yield hidden
        hidden.replace(path)
    except SlideTriageError:
        raise  # of those who deliver the cells, some of which are an OSError as well
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}).",
            mend="Check the disk and its rights.",
        ) from error
    finally:
        hidden.unlink(missing_ok=True)
