"""The serial engine: steps in order in this process, the reference for every other."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from dask.system import CPU_COUNT

from .opening import OpenStation, open_triage
from .settings import Settings
from .steps import Receipt, Step

AHEAD = 1
"""Batches that a station reads while others are encoded."""

MOST_AT_ONCE = 8
"""Batches encoded at a time in one process; each pass holds its own activations in memory."""


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

    On a CPU as many batches are encoded at a time as there are cores for, each on
    `Settings.threads` of them; another thread reads ahead.
    """

    def __init__(
        self,
        settings: Settings,
        out: Path,
        *,
        cores: int = CPU_COUNT,
        station: OpenStation = open_triage,
    ) -> None:
        at_once = 1
        if settings.device == "cpu":
            at_once = min(MOST_AT_ONCE, max(1, cores // settings.threads))
        self._station = station(settings, out, at_once=at_once)
        self._pool = ThreadPoolExecutor(at_once + AHEAD, thread_name_prefix="station")
        self.slots = at_once + AHEAD + 1
        self._waiting: deque[tuple[Step, Future[Receipt]]] = deque()
        self._at_work = 0
        self._rest = threading.Condition()

    def load(self) -> None:
        """Load and compile the model now rather than with the first step."""
        self._station.load()

    def submit(self, step: Step) -> None:
        """Begin the step as soon as a thread is free."""
        self._waiting.append((step, self._pool.submit(self._perform, step)))

    def next_done(self) -> tuple[Step, Receipt]:
        """Wait for the step that was submitted first."""
        step, receipt = self._waiting.popleft()
        return step, receipt.result()

    def close(self) -> None:
        """Drop what has not begun, end what reads, wait for the rest, and let go of the slides."""
        self._station.stop()
        self._pool.shutdown(cancel_futures=True)
        # A thread whose start was interrupted works on, though the pool does not know it.
        with self._rest:
            self._rest.wait_for(lambda: self._at_work == 0)
        self._waiting.clear()
        self._station.close()

    def _perform(self, step: Step) -> Receipt:
        with self._rest:
            self._at_work += 1
        try:
            return self._station.perform(step)
        finally:
            with self._rest:
                self._at_work -= 1
                self._rest.notify_all()


_proof: type[Engine] = SerialEngine
