"""The serial engine: one step after the other in this process, the reference for every other."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Protocol

from .settings import Settings
from .station import Station
from .steps import Receipt, Step


class Engine(Protocol):
    """Carries out steps somewhere; knows nothing of slides, order or results."""

    @property
    def slots(self) -> int:
        """How many steps to have submitted at a time, so that no worker waits."""
        ...

    def submit(self, step: Step) -> None:
        """Take a step; returns at once or when it is done."""
        ...

    def next_done(self) -> tuple[Step, Receipt]:
        """Wait for any submitted step; each is handed out once."""
        ...

    def close(self) -> None:
        """Stop all work and let go of every process."""
        ...


class SerialEngine:
    """Carries out each step when its receipt is asked for."""

    slots = 1

    def __init__(self, settings: Settings, out: Path) -> None:
        self._station = Station(settings, out)
        self._waiting: deque[Step] = deque()

    def submit(self, step: Step) -> None:
        """Remember the step."""
        self._waiting.append(step)

    def next_done(self) -> tuple[Step, Receipt]:
        """Carry out the step that was submitted first."""
        step = self._waiting.popleft()
        return step, self._station.perform(step)

    def close(self) -> None:
        """Let go of the open slide."""
        self._waiting.clear()
        self._station.close()


_proof: type[Engine] = SerialEngine
