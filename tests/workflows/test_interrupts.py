"""A wish to stop that other code swallows is heeded at the next step."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
print("heeding", flush=True)
try:
    signal.raise_signal(int(sys.argv[1]))
    sys.exit("it is not raised at once")
except KeyboardInterrupt:
    pass  # as a library may
try:
    Run([], Path("staging"), Silent(), Settings()).drive(Idle())
    sys.exit("it is not raised again")
except KeyboardInterrupt:
    pass
check_interrupts()  # and not for ever
print("heeded")
"""


@pytest.mark.parametrize("wish", WISHES)
def test_a_swallowed_wish_is_raised_again_once(wish: signal.Signals) -> None:
    """In a process of its own: the one that tests run in has other uses for its signals."""
    command = [sys.executable, "-c", SWALLOWING, str(wish.value)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "heeding\nheeded\n")
