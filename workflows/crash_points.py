"""Places at which a test may have a process die, to show that nothing is lost there.

`SLIDETRIAGE_CRASH_AT=publish.renamed` ends the process as SIGKILL would at every passing of that
point, `publish.renamed#2` at its second passing in that process. Unset, as always but in tests, a
point costs a comparison.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_WANTED, _, _COUNT = os.environ.get("SLIDETRIAGE_CRASH_AT", "").partition("#")
_passed: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Die here if that was asked for."""
    if not _WANTED or name != _WANTED:
        return
    _passed[name] += 1
    if not _COUNT or _passed[name] == int(_COUNT):
        os.kill(os.getpid(), signal.SIGKILL)
