"""The serial engine: steps in order in this process, the reference for every other."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from .settings import Settings
from .station import Station
from .steps import Receipt, Step

AT_ONCE = 2
"""Steps carried out at a time by one station: one batch is read while another is encoded."""


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
    """Carries out steps in this process and hands out their receipts in the order submitted.

    The network has one batch at a time, in order of reading; a second thread reads the next.
    """

    slots = AT_ONCE + 1

    def __init__(self, settings: Settings, out: Path) -> None:
        self._station = Station(settings, out)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="station")
        self._waiting: deque[tuple[Step, Future[Receipt]]] = deque()

    def load(self) -> None:
        """Load and compile the model now rather than with the first step."""
        self._station.load()

    def submit(self, step: Step) -> None:
        """Begin the step as soon as a thread is free."""
        self._waiting.append((step, self._pool.submit(self._station.perform, step)))

    def next_done(self) -> tuple[Step, Receipt]:
        """Wait for the step that was submitted first."""
        step, receipt = self._waiting.popleft()
        return step, receipt.result()

    def close(self) -> None:
        """Drop what has not begun, wait for what has, and let go of the open slides."""
        self._pool.shutdown(cancel_futures=True)
        self._waiting.clear()
        self._station.close()


_proof: type[Engine] = SerialEngine
