"""Which step comes next: no slot stays empty, and no more slides are in work than that takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pretending import Pretending
from slidetriage.workflows.jobs import BEGUN_AT_LEAST, Run
from slidetriage.workflows.observers import Silent
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.steps import SlideFailure, SlidePlan, SlideResult


class Notebook:
    """Counts the slides that are in work."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most = 0

    def opens(self, request: SlideRequest) -> None:
        """Not counted."""

    def begins(self, request: SlideRequest, *, stored: int) -> None:
        assert stored == 0
        self.begun.append(request.name)
        self.most = max(self.most, len(set(self.begun) - set(self.ended)))

    def ends(
        self, request: SlideRequest, outcome: SlideResult | SlideFailure, plan: SlidePlan | None
    ) -> SlideResult | SlideFailure:
        del plan
        self.ended.append(request.name)
        return outcome


def drive(
    batches: list[int], slots: int, order: list[int], bad: int = -1
) -> tuple[Run, Pretending, Notebook]:
    requests = [
        SlideRequest(Path(f"{number}.svs"), f"{number}-bad" if number == bad else f"{number}-good")
        for number in range(len(batches))
    ]
    engine, notes = Pretending(batches, slots, order), Notebook()
    run = Run(requests, Path("staging"), Silent(), Settings(), notes)
    run.drive(engine)
    return run, engine, notes


@given(
    some.lists(some.integers(0, 6), min_size=1, max_size=12),
    some.integers(2, 9),
    some.lists(some.integers(0, 8), min_size=1, max_size=20),
    some.integers(-1, 11),
)
def test_every_slide_ends_whatever_the_order_of_receipts(
    batches: list[int], slots: int, order: list[int], bad: int
) -> None:
    run, engine, notes = drive(batches, slots, order, bad)
    assert not engine.taken
    assert sorted(notes.ended) == sorted(row.request.name for row in run.rows())
    assert len(notes.begun) == len(set(notes.begun)), "none begins twice"
    for row, count in zip(run.rows(), batches, strict=True):
        fails = row.request.name.endswith("-bad") and count > 0
        assert isinstance(row.outcome, SlideFailure if fails else SlideResult)


@pytest.mark.parametrize("slots", [2, 4, 12])
def test_no_more_slides_are_in_work_than_keep_the_engine_busy(slots: int) -> None:
    """What is in work is begun again after a kill, so twenty small slides are not begun at once."""
    _, engine, notes = drive([1] * 20, slots, [3, 1, 0, 2])
    assert notes.most == max(BEGUN_AT_LEAST, slots // 2)
    _, engine, notes = drive([9] * 5, slots, [0])
    assert engine.most == slots, "large slides fill every slot"
    assert notes.most <= max(BEGUN_AT_LEAST, slots // 2)
