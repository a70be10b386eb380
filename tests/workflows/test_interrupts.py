"""A wish to stop that other code swallows is heeded at the next step."""

from __future__ import annotations

import subprocess
import sys

from slidetriage.workflows.interrupts import WISHES

SWALLOWING = """
import signal, sys
from contextlib import suppress
from pathlib import Path
from slidetriage.workflows.interrupts import check_interrupts, heed_interrupts
from slidetriage.workflows.jobs import Run
from slidetriage.workflows.observers import Silent
from slidetriage.workflows.settings import Settings

class Idle:
    slots = 2

heed_interrupts()
for wish in map(int, sys.argv[1:]):
    try:
        signal.raise_signal(wish)
        sys.exit(f"{wish} is not raised at once")
    except KeyboardInterrupt:
        pass  # as a library may
    try:
        Run([], Path("staging"), Silent(), Settings()).drive(Idle())
        sys.exit(f"{wish} is not raised again")
    except KeyboardInterrupt:
        pass
    check_interrupts()  # and not for ever
    print("heeded", wish)
"""


def test_a_swallowed_wish_is_raised_again_once() -> None:
    """In a process of its own: the one that tests run in has other uses for its signals."""
    wishes = [str(wish.value) for wish in WISHES]
    command = [sys.executable, "-c", SWALLOWING, *wishes]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [f"heeded {wish}" for wish in wishes]
