"""What a run will take, worked out before it: time, memory and disk of every slide and of all.

Only arithmetic: `measuring` finds the figures that go in. They are estimates, not promises.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil

from slidetriage.models import Card
from slidetriage.wsi import Slide

from .cell_estimate import CellEstimate, add_up, rounded
from .settings import Settings
from .sources import SlideRequest
from .steps import SlideFailure

CAVEAT = (
    "An estimate from a short measurement on this machine as busy as it is now; "
    "discs that are slower than memory and other programs make a run longer."
)

CLUSTER_S = 2.5
"""Seconds to start, connect and stop processes, beside what they import."""

FINISH_S = 0.6
"""Seconds to draw, write and publish a slide of few tiles; most of it is the overlay."""

FINISH_TILE_S = 8e-5
"""Seconds to score and write one tile more: 21,672 tiles took 2.4 s in all."""

WORKING_BYTES = 256 << 20
"""What a worker takes beside model and buffers: libraries loaded when first used, caches of
decoded tiles, the overlay's canvas; 259 MB were measured."""

THUMBNAIL_BYTES = 20
"""Most bytes in use per pixel of a thumbnail while its tissue is found; 18 were measured."""

TILE_BYTES = 400
"""Of one tile in tiles.geojson (340 to 360), heatmap (7 to 30) and regions (5 to 130)."""

FOLDER_BYTES = 20_000
"""What a slide without tiles leaves: JSON files and the heatmap's metadata."""

FEATURE_SHARE = 0.65
"""Of a feature's 4 bytes that zstd leaves: 0.4 to 0.6 were measured where the network makes zeros;
without them it leaves nearly all."""

OVERLAY_SHARE = 0.45
"""Of the picture's entropy that the overlay takes, 0.25 to 0.8 on seven slides: it is a PNG with
the slide twice, made smaller."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured here with the model, and how many workers there will be."""

    workers: int
    steps_at_once: int
    """Threads of a worker."""
    encodings_at_once: int
    """How many of them may have the network at a time."""
    cores: int
    network_tiles_s: float
    """Tiles per second of one network alone."""
    threads: int
    """Cores that a network takes while it runs; 0 on a GPU."""
    start_s: float
    """From the command to the first step."""
    worker_bytes: int
    """Memory of a process with the model ready."""
    driver_bytes: int
    """Memory of the process that gives out the steps."""

    def tiles_s(self, reading_tiles_s: float, batches: int) -> float:
        """Tiles per second of all workers on one slide of so many batches.

        A worker's threads take turns at its networks and read in between; together they cannot
        use more than the cores there are.
        """
        network_s, reading_s = 1 / self.network_tiles_s, 1 / reading_tiles_s
        workers = min(self.workers, max(1, batches))
        encodings = min(self.encodings_at_once, ceil(max(1, batches) / workers))
        each = min(encodings / network_s, self.steps_at_once / (reading_s + network_s))
        return min(workers * each, self.cores / (reading_s + network_s * self.threads))


@dataclass(frozen=True, slots=True)
class SlideEstimate:
    """One slide: what is known of it, and what it will take."""

    request: SlideRequest
    slide: Slide
    tissue_mm2: float
    tiles: int
    reading_tiles_s: float | None
    """Tiles that one thread reads per second; None where there are no tiles."""
    plan_s: float
    encode_s: float
    """With all workers on this slide."""
    finish_s: float
    thumbnail_px: int
    result_bytes: int
    staging_bytes: int
    """On disk while the slide is worked on, at most."""
    cells: CellEstimate | None = None
    """Where nuclei are to be looked for; times and sizes are without them."""

    @property
    def seconds(self) -> float:
        """From the moment it is planned until it is published, were it the only one."""
        return self.plan_s + self.encode_s + self.finish_s

    @property
    def gigapixels(self) -> float:
        """Pixels of level 0 in thousand millions."""
        return self.slide.width_px * self.slide.height_px / 1e9

    def as_record(self) -> dict[str, object]:
        """For programs; bytes, seconds, mm2, level-0 px."""
        slide = self.slide
        return {
            "path": str(self.request.path),
            "name": self.request.name,
            "width_px": slide.width_px,
            "height_px": slide.height_px,
            "gigapixels": round(self.gigapixels, 6),
            "mpp": asdict(slide.mpp),
            "reader": slide.reader,
            "reader_reason": slide.reader_reason,
            "tissue_mm2": round(self.tissue_mm2, 6),
            "tiles": self.tiles,
            "reading_tiles_per_s": rounded(self.reading_tiles_s),
            "seconds": rounded(self.seconds),
            "result_bytes": self.result_bytes,
            "staging_bytes": self.staging_bytes,
            "cells": None if self.cells is None else self.cells.as_record(),
            "warnings": list(slide.warnings),
            "code": None,
            "reason": None,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """One slide that cannot be planned, and why."""

    request: SlideRequest
    failure: SlideFailure

    def as_record(self) -> dict[str, object]:
        """For programs."""
        return {
            "path": str(self.request.path),
            "name": self.request.name,
            "code": self.failure.code,
            "reason": self.failure.message,
        }


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """All slides of a run, in the order of their paths."""

    card: Card
    settings: Settings
    machine: Machine
    rows: tuple[SlideEstimate | Refusal, ...]

    @property
    def planned(self) -> list[SlideEstimate]:
        """The slides that can be triaged."""
        return [row for row in self.rows if isinstance(row, SlideEstimate)]

    @property
    def refused(self) -> list[Refusal]:
        """The slides that cannot."""
        return [row for row in self.rows if isinstance(row, Refusal)]

    @property
    def seconds(self) -> float:
        """From the command to its end.

        Slides are planned and finished on one worker each while the others encode, so only the
        longest slide is waited for as a whole.
        """
        at_once = min(self.machine.workers, self.machine.cores)
        shared = sum(s.encode_s + (s.plan_s + s.finish_s) / at_once for s in self.planned)
        longest = max((slide.seconds for slide in self.planned), default=0.0)
        return self.machine.start_s + max(shared, longest)

    @property
    def cells(self) -> CellEstimate | None:
        """What the nuclei of all slides take beside that; None where none are looked for."""
        found = [slide.cells for slide in self.planned if slide.cells is not None]
        return add_up(found, sum(slide.tissue_mm2 for slide in self.planned))

    @property
    def worker_bytes(self) -> int:
        """Memory of one worker at its largest."""
        side = self.card.tile_px
        buffers = self.machine.steps_at_once * self.settings.batch_tiles * side * side * 3
        thumbnail = max((slide.thumbnail_px for slide in self.planned), default=0)
        measured = self.machine.worker_bytes + WORKING_BYTES
        return measured + buffers + THUMBNAIL_BYTES * thumbnail

    @property
    def memory_bytes(self) -> int:
        """Memory of all workers and the process that drives them."""
        return self.machine.workers * self.worker_bytes + self.machine.driver_bytes

    @property
    def result_bytes(self) -> int:
        """Disk for what is published."""
        return sum(slide.result_bytes for slide in self.planned)

    @property
    def staging_bytes(self) -> int:
        """Disk for unfinished work: one slide is read while the next is planned."""
        return sum(sorted((slide.staging_bytes for slide in self.planned), reverse=True)[:2])

    def as_record(self) -> dict[str, object]:
        """For programs; bytes, seconds, tiles per second."""
        machine = self.machine
        return {
            "note": CAVEAT,
            "model": {"name": self.card.name, "version": self.card.version},
            "machine": {
                "workers": machine.workers,
                "cores": machine.cores,
                "device": self.settings.device,
                "network_tiles_per_s": rounded(machine.network_tiles_s),
                "start_s": rounded(machine.start_s),
            },
            "total": {
                "slides": len(self.rows),
                "planned": len(self.planned),
                "refused": len(self.refused),
                "tiles": sum(slide.tiles for slide in self.planned),
                "seconds": rounded(self.seconds),
                "worker_bytes": self.worker_bytes,
                "memory_bytes": self.memory_bytes,
                "result_bytes": self.result_bytes,
                "staging_bytes": self.staging_bytes,
                "cells": None if self.cells is None else self.cells.as_record(),
            },
            "slides": [row.as_record() for row in self.rows],
        }


def finish_seconds(tiles: int) -> float:
    """To score, draw, write and publish a slide."""
    return FINISH_S + FINISH_TILE_S * tiles


def feature_bytes(tiles: int, feature_size: int) -> int:
    """Features of a slide as they lie on disk."""
    return round(tiles * feature_size * 4 * FEATURE_SHARE)


def result_bytes(tiles: int, picture_bytes: float) -> int:
    """A slide's published folder, without features; `picture_bytes` is the picture's entropy."""
    return round(FOLDER_BYTES + TILE_BYTES * tiles + OVERLAY_SHARE * picture_bytes)
