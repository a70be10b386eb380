"""How many tiles to take in one pass, and how to tell that they were too many."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

BATCH_TILES = 32
"""Tiles per pass; on a CPU more are no faster, on a GPU the search begins here."""

LARGE_NETWORK_TILES = 8
"""The same for a large network on a CPU: as fast, and an incomplete batch wastes less."""

MOST_BATCH_TILES = 1024
WORTHWHILE = 1.05
"""A batch twice as large must be this much faster per tile to be worth its memory."""

# torch on the CPU (Windows, Linux), CUDA, cuBLAS, OpenVINO.
_NO_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "ALLOC_FAILED",
    "bad_alloc",
)

_SMALL_PARAMETERS = 50e6
"""ResNet-50 has 24 million and ViT-S 22, ViT-B 86 and ViT-L 304."""


def is_small(network: nn.Module) -> bool:
    """Whether a pass costs little."""
    return sum(p.numel() for p in network.parameters()) <= _SMALL_PARAMETERS


def default_batch_tiles(network: nn.Module) -> int:
    """Tiles per pass before anything is measured."""
    on_cpu = next(network.buffers()).device.type == "cpu"
    return LARGE_NETWORK_TILES if on_cpu and not is_small(network) else BATCH_TILES


def find_batch_tiles(measure: Callable[[int], float], *, first: int = BATCH_TILES) -> int:
    """Double the batch while it fits and while that is worthwhile.

    `measure` takes a number of tiles per pass and returns tiles per second. That the first
    number does not fit is the caller's to handle.
    """
    best, speed = first, measure(first)
    while best * 2 <= MOST_BATCH_TILES:
        try:
            faster = measure(best * 2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        if faster < speed * WORTHWHILE:
            break
        best, speed = best * 2, faster
    return best


def measure_speed(
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    tiles: NDArray[np.uint8],
    *,
    batch_tiles: int,
    batches: int = 4,
) -> float:
    """Tiles per second over some batches, after one to warm up."""
    run(np.resize(tiles, (batch_tiles, *tiles.shape[1:])))
    images = np.resize(tiles, (batches * batch_tiles, *tiles.shape[1:]))
    start = time.perf_counter()
    run(images)
    return len(images) / (time.perf_counter() - start)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, OpenVINO or Python mean by this that memory does not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _NO_MEMORY)
