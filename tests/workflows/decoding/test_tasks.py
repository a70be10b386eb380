"""Disks that fail while a slide is opened: asked again, then said."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slidetriage.errors import SlideTriageError
from slidetriage.models import load_bundle
from slidetriage.workflows.decoding import tasks
from slidetriage.workflows.decoding.progress import SharedMemory, make_shared_file
from slidetriage.workflows.decoding.tasks import Tasks
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.surveying import TilesWanted
from slidetriage.wsi import tiff_tiles


@pytest.fixture
def needs() -> TilesWanted:
    return TilesWanted.of(load_bundle("breast-idc-scout").card)


@pytest.fixture
def carried_out() -> Iterator[Tasks]:
    shared = make_shared_file(1)
    yield Tasks(SharedMemory(shared))
    os.close(shared)


@pytest.mark.parametrize("place", ["open_request", "file_signatures"])
@pytest.mark.parametrize("times", [1, 100])
def test_a_fault_in_passing_is_made_good_and_a_lasting_one_is_said(
    place: str,
    times: int,
    carried_out: Tasks,
    needs: TilesWanted,
    phantom: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = SlideRequest(phantom, "phantom")
    wanted = carried_out.inspect(request, needs)
    plain, faults = getattr(tasks, place), [OSError(errno.EIO, "Input/output error")] * times

    def fail(*arguments: object) -> object:
        if faults:
            raise faults.pop()
        return plain(*arguments)

    monkeypatch.setattr(tasks, place, fail)
    if times == 1:
        assert carried_out.inspect(request, needs) == wanted
    else:
        with pytest.raises(SlideTriageError, match=r"phantom.*Input/output error") as caught:
            carried_out.inspect(request, needs)
        assert caught.value.code == "E_IO"


def test_a_fault_while_levels_are_compared_changes_nothing(
    carried_out: Tasks, needs: TilesWanted, phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the reads fails."""
    request = SlideRequest(phantom, "phantom")
    wanted = carried_out.inspect(request, needs)
    assert any(level.averaged for level in wanted.slide.levels)
    plain = tiff_tiles.os.pread
    count, failed, at = 0, 0, 0

    def fail(*arguments: int) -> bytes:
        nonlocal count, failed
        count += 1
        if count == at:
            failed += 1
            raise OSError(errno.EIO, "Input/output error")
        return plain(*arguments)

    monkeypatch.setattr(tiff_tiles.os, "pread", fail)
    for at in range(1, 40):
        count = 0
        assert carried_out.inspect(request, needs) == wanted, f"read {at} failed"
    assert failed > 5
