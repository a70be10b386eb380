"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import numpy as np
from slidetriage.workflows.memory import return_freed_memory

def resident_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

before = resident_mib()
# Each too small to be mapped alone, with one left at the end that keeps the heap from shrinking.
pieces = [np.ones(8_000) for _ in range(5_000)]
pieces = pieces[-1:]
freed = resident_mib()
return_freed_memory()
print(freed - before, resident_mib() - before)
"""


def test_freed_pages_are_handed_back() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    freed, returned = map(float, run.stdout.split())
    assert freed > 150, "without it the C library keeps what was freed"
    assert returned < 50
