"""Batch sizes: doubled while worthwhile and possible, and a lack of memory is recognised."""

from __future__ import annotations

import pytest
import torch

from slidetriage.models.batch_size import MOST_BATCH_TILES, find_batch_tiles, is_out_of_memory


def search(speeds: dict[int, float], error: Exception | None = None) -> tuple[int, list[int]]:
    tried = []

    def measure(batch: int) -> float:
        tried.append(batch)
        if batch not in speeds:
            raise error or AssertionError(batch)
        return speeds[batch]

    return find_batch_tiles(measure, first=32), tried


def test_doubles_while_it_is_worthwhile() -> None:
    assert search({32: 100, 64: 110, 128: 114}) == (64, [32, 64, 128])
    assert search({32: 100, 64: 99}) == (32, [32, 64])


def test_stops_at_the_most() -> None:
    best, tried = search({32 * 2**i: 2.0**i for i in range(20)})
    assert best == tried[-1] == MOST_BATCH_TILES


def test_keeps_what_fits() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory")
    assert search({32: 1, 64: 2}, full) == (64, [32, 64, 128])
    with pytest.raises(RuntimeError, match="illegal"):
        search({32: 1}, RuntimeError("illegal memory access"))
    with pytest.raises(torch.OutOfMemoryError):
        search({}, full)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_recognised(error: Exception, wanted: bool) -> None:
    assert is_out_of_memory(error) is wanted


def test_torch_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
