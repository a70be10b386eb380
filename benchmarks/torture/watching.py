"""What a process holds while it works: memory, handles, threads, and when slides ended."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from slidetriage.workflows.steps import BatchReceipt, CellPlan, SlidePlan
from slidetriage.workflows.worklist import Row


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process held at one moment."""

    seconds: float
    rss_mb: float
    children_mb: float
    """Of the nursery and its decoders."""
    handles: int
    threads: int


def sample() -> Sample:
    """What this process holds now, after a collection of garbage."""
    gc.collect()
    process, children = psutil.Process(), 0.0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            children += child.memory_info().rss / 2**20
    return Sample(
        time.monotonic(),
        process.memory_info().rss / 2**20,
        children,
        process.num_fds(),
        process.num_threads(),
    )


@dataclass
class Watch:
    """A watcher of a run that notes when slides ended, and samples every so many of them."""

    every: int
    samples: list[tuple[int, Sample]] = field(default_factory=list)
    ended_at: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    plans: int = 0
    batches: int = 0
    tiles: int = 0

    def started(self, slides: int) -> None:
        """Nothing to note."""

    def planned(self, plan: SlidePlan) -> None:
        """One more was opened."""
        self.plans += 1

    def located(self, cells: CellPlan) -> None:
        """Nothing to note."""

    def read(self, receipt: BatchReceipt) -> None:
        """One more batch was read."""
        self.batches += 1
        self.tiles += receipt.tiles

    def ended(self, row: Row) -> None:
        """One more slide has its outcome."""
        self.ended_at.append(time.monotonic())
        self.rows.append(row)
        if len(self.rows) % self.every == 0:
            self.samples.append((len(self.rows), sample()))


def slope(points: list[tuple[float, float]]) -> float:
    """Of a line through the points by least squares; 0 where there are too few."""
    if len(points) < 3:
        return 0.0
    x, y = np.array(points).T
    return float(np.polyfit(x, y, 1)[0])


def count_files(folder: Path) -> int:
    """Files and folders below a folder."""
    return sum(1 for _ in folder.rglob("*"))
