"""A wish to stop is not lost, whatever code it interrupts.

Python raises `KeyboardInterrupt` wherever the main thread is just then. Where that is a callback,
a finaliser or a library's bare `except`, it comes to nothing, and a run that was told to stop goes
on for hours. So the wish is noted as well, and a run asks for it before each step.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

WISHES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Stopping is the same whoever asks for it."""

_asked = False


def heed_interrupts() -> None:
    """From now on the signals that ask this process to stop are noted; for the main thread."""
    for wish in WISHES:
        signal.signal(wish, _note)


def check_interrupts() -> None:
    """Raise `KeyboardInterrupt` once more where one was raised before and came to nothing."""
    global _asked
    if _asked:
        _asked = False
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> NoReturn:
    global _asked
    _asked = True
    signal.default_int_handler(number, frame)
