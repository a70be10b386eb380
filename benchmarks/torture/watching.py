"""What a process holds while it works: memory, handles, threads, and when slides ended."""

from __future__ import annotations

import ctypes
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
    in_use_mb: float
    """Of that, what was asked of malloc and not given back: free blocks that malloc keeps, and
    finds a use for later, are not in it."""
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
        measure_in_use() / 2**20,
        children,
        process.num_fds(),
        process.num_threads(),
    )


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def measure_in_use() -> int:
    """Bytes that this process holds of malloc, in all arenas and mapped blocks."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _MallInfo
    found = ask()
    return int(found.uordblks) + int(found.hblkhd)


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
