"""Dask's messages go out also where the system's clock is set back while they wait.

A `BatchedSend` of Dask holds messages back for some milliseconds, until a time by the system's
clock. If that is set back meanwhile, by an hour say, the message and all after it wait for an hour,
and the run stands still (`distributed.batched`, 2026.7; seen with faketime in one of ten runs).
"""

from __future__ import annotations

from typing import Any

from distributed import batched

PASSED = 0.0
"""A deadline that has passed whatever the clock says."""


class _Deadline:
    """In the place of an attribute: what lies further ahead than was ever meant has passed."""

    def __get__(self, sender: Any, owner: type | None = None) -> Any:
        if sender is None:
            return self
        until = sender.__dict__.get("next_deadline")
        if until is not None and until - batched.time() > sender.interval:  # type: ignore[attr-defined]  # what it reads the clock by
            return PASSED
        return until

    def __set__(self, sender: Any, until: float | None) -> None:
        sender.__dict__["next_deadline"] = until


def send_in_spite_of_the_clock() -> None:
    """Have every `BatchedSend` of this process send on when the clock was set back."""
    batched.BatchedSend.next_deadline = _Deadline()
