"""Nuclei of a slide on disk while it is worked on: a file for each batch of windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.models.nuclei import NucleusTable
from slidetriage.models.nuclei.pixel_quality import PixelBlocks

PARTS = "cells"
AREAS_FILE = "areas.json"

WITHIN, ACROSS, BEYOND = range(3)
"""Where a nucleus lies in its window: all of it within the core, its centre within the core but a
part of it not, or its centre just beyond. Of the last two a neighbour may have the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What was found in one batch of windows."""

    table: NucleusTable
    place: NDArray[np.uint8]
    """N; `WITHIN`, `ACROSS` or `BEYOND`."""
    missing: NDArray[np.int32]
    """Numbers of the batch's windows that could not be read, among the slide's."""
    blocks: PixelBlocks = field(default_factory=PixelBlocks.none)
    """What the pixels in the cores of its windows were like."""


def write_part(staging: Path, start: int, part: Part) -> None:
    """Store the batch whose first window is `start`; a batch done again replaces the first."""
    table = part.table
    path = staging / PARTS / f"{start:08d}.npz"
    temporary = path.with_suffix(".tmp")
    columns = {f"m{n:02d}": values for n, values in enumerate(table.measurements.values())}
    with temporary.open("wb") as file:
        np.savez(
            file,
            points=table.points,
            offsets=table.offsets,
            scores=table.scores,
            place=part.place,
            missing=part.missing,
            block_centres=part.blocks.centres,
            block_tissue_um2=part.blocks.tissue_um2,
            block_blurred=part.blocks.blurred,
            block_stains=part.blocks.stains,
            names=np.array(list(table.measurements), dtype=np.str_),
            **columns,  # type: ignore[arg-type]  # numpy's stub takes the first for allow_pickle
        )
    temporary.replace(path)


def digest_part(staging: Path, start: int) -> str:
    """sha256 of the file of the batch whose first window is `start`."""
    with (staging / PARTS / f"{start:08d}.npz").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_parts(staging: Path) -> list[Path]:
    """The files of all batches, in the order of their windows."""
    return sorted((staging / PARTS).glob("*.npz"))


def read_part(path: Path) -> Part:
    """One batch."""
    with np.load(path, allow_pickle=False) as file:
        names = [str(name) for name in file["names"]]
        measurements = {name: file[f"m{n:02d}"] for n, name in enumerate(names)}
        table = NucleusTable(file["points"], file["offsets"], file["scores"], measurements)
        blocks = PixelBlocks(
            file["block_centres"],
            file["block_tissue_um2"],
            file["block_blurred"],
            file["block_stains"],
        )
        return Part(table, file["place"], file["missing"], blocks)


def iterate_parts(staging: Path) -> Iterator[Part]:
    """All batches, one in memory at a time."""
    for path in list_parts(staging):
        yield read_part(path)
