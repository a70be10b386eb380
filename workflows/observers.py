"""Who is told how a run goes: watchers show it, notes keep it; and those that do neither."""

from __future__ import annotations

from typing import Protocol

from .sources import SlideRequest
from .steps import BatchReceipt, CellPlan, SlideFailure, SlidePlan, SlideResult
from .worklist import Row


class Watcher(Protocol):
    """Is told how a run goes, to show it."""

    def started(self, slides: int) -> None:
        """A run over so many slides begins."""
        ...

    def planned(self, plan: SlidePlan) -> None:
        """A slide was opened and its tiles are known."""
        ...

    def located(self, cells: CellPlan) -> None:
        """It is known in which windows of a slide nuclei are looked for."""
        ...

    def read(self, receipt: BatchReceipt) -> None:
        """A batch of tiles was read and encoded, or one of windows looked through."""
        ...

    def ended(self, row: Row) -> None:
        """A slide has its result or its failure."""
        ...


class Notes(Protocol):
    """Takes down what becomes of each slide; a `Book` keeps it."""

    def opens(self, request: SlideRequest) -> None:
        """A slide is looked at; that costs little, and is done ahead of time."""
        ...

    def begins(self, request: SlideRequest, *, stored: int) -> None:
        """Its tiles are read from now on, but for those that a former run stored."""
        ...

    def ends(
        self, request: SlideRequest, outcome: SlideResult | SlideFailure, plan: SlidePlan | None
    ) -> SlideResult | SlideFailure:
        """A slide has its outcome; returned as it may be shown."""
        ...


class Unwritten:
    """Takes nothing down."""

    def opens(self, request: SlideRequest) -> None:
        """Do nothing."""

    def begins(self, request: SlideRequest, *, stored: int) -> None:
        """Do nothing."""

    def ends(
        self, request: SlideRequest, outcome: SlideResult | SlideFailure, plan: SlidePlan | None
    ) -> SlideResult | SlideFailure:
        """Do nothing."""
        del request, plan
        return outcome


class Silent:
    """Shows nothing."""

    def started(self, slides: int) -> None:
        """Do nothing."""

    def planned(self, plan: SlidePlan) -> None:
        """Do nothing."""

    def located(self, cells: CellPlan) -> None:
        """Do nothing."""

    def read(self, receipt: BatchReceipt) -> None:
        """Do nothing."""

    def ended(self, row: Row) -> None:
        """Do nothing."""


_proof: tuple[type[Watcher], type[Notes]] = (Silent, Unwritten)
