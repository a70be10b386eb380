"""The serial engine: receipts in order, and nothing at work once it is closed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from slidetriage.workflows.serial import SerialEngine
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.steps import PlanStep, SlideFailure


class Gate:
    """A station that works only once it is let."""

    def __init__(self, *_: object, **__: object) -> None:
        self.begun, self.open, self.closed = threading.Event(), threading.Event(), False
        self.at_work_when_closed = 0
        self._at_work = 0

    def perform(self, step: PlanStep) -> SlideFailure:
        self._at_work += 1
        self.begun.set()
        assert self.open.wait(30)
        self._at_work -= 1
        return SlideFailure("plan", "E_TEST", step.request.name, rejected=True)

    def stop(self) -> None:
        """A station of this kind reads nothing."""

    def close(self) -> None:
        self.closed, self.at_work_when_closed = True, self._at_work


def step(name: str) -> PlanStep:
    return PlanStep(SlideRequest(Path(f"{name}.svs"), name), Path("staging"))


def make_engine(tmp_path: Path) -> tuple[SerialEngine, Gate]:
    gate = Gate()
    return SerialEngine(Settings(), tmp_path, cores=2, station=lambda *_, **__: gate), gate  # type: ignore[arg-type,return-value]  # stands for a station


def test_receipts_come_in_the_order_of_steps(tmp_path: Path) -> None:
    engine, gate = make_engine(tmp_path)
    gate.open.set()
    for name in "abc":
        engine.submit(step(name))
    found = [engine.next_done()[1] for _ in "abc"]
    assert [each.message for each in found if isinstance(each, SlideFailure)] == ["a", "b", "c"]
    engine.close()
    assert gate.closed


@pytest.mark.parametrize("known", [True, False])
def test_closing_waits_for_every_thread_that_works(tmp_path: Path, known: bool) -> None:
    """Also for one that the pool does not know, for an interrupt came while it was started."""
    engine, gate = make_engine(tmp_path)
    engine.submit(step("a"))
    assert gate.begun.wait(30)
    if not known:
        engine._pool._threads.clear()
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(0.3)
    assert closing.is_alive()
    assert not gate.closed
    gate.open.set()
    closing.join(30)
    assert gate.closed
    assert gate.at_work_when_closed == 0
