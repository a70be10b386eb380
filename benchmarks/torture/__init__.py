"""What the torture benches share: slides to spoil, ways to spoil them, trees to compare.

The makers of small painted slides are those of the tests, so the benches run in a checkout.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"

if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))
