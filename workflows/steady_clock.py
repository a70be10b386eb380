"""Dask by a clock that nobody sets.

Dask and its event loop (tornado) wait until times of the system's clock. Where that is set back
while a run lasts, by an hour say, they wait an hour for what was to take milliseconds: messages lie
in a `BatchedSend`, heartbeats stop. Where it is set forward, whoever was heard of a moment ago has
been silent for an hour, and connections that are being made have taken too long. With faketime, one
of ten runs stood still (distributed 2026.7, tornado 6.6).
"""

from __future__ import annotations

import sys
import time

from distributed import metrics
from tornado.ioloop import IOLoop

_STARTED_S = time.time() - time.monotonic()
"""What the system's clock said when the machine started, as far as it was right just now."""

_set_by_others = metrics.time


def steady_time() -> float:
    """Seconds since 1970 by the clock as it was when this was imported; never jumps."""
    return _STARTED_S + time.monotonic()


def keep_time_steadily() -> None:
    """Have Dask and its event loops in this process go by `steady_time`."""
    IOLoop.time = _time_of_loop  # type: ignore[method-assign,assignment]  # its name for itself is not told
    metrics.time = steady_time
    for name, module in list(sys.modules.items()):
        if name.startswith("distributed.") and getattr(module, "time", None) is _set_by_others:
            module.time = steady_time  # type: ignore[attr-defined]  # each has it by that name


def _time_of_loop(loop: IOLoop) -> float:
    del loop
    return steady_time()
