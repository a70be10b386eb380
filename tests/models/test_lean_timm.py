"""timm without PyTorch's compiler, and the compiler where it is wanted after all."""

from __future__ import annotations

import subprocess
import sys

BUNDLE = """
import sys
import slidetriage
bundle = slidetriage.load_bundle("breast-idc-scout")
import numpy as np
bundle.tile_scores(np.zeros((2, 50, 50, 3), np.uint8))
print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""

LATER = """
import sys
import slidetriage.models.lean_timm as lean
import torch, torchvision
assert "torch._dynamo" not in sys.modules
pooled = torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), 2)
assert torch.equal(pooled, torch.ones(1, 1, 2, 2))
doubled = torch.compile(lambda x: 2 * x, backend="eager")
assert doubled(torch.ones(1)).item() == 2
from torch._dynamo.utils import is_compile_supported
assert is_compile_supported is torch._dynamo.utils.is_compile_supported
with lean._compiler_later():
    assert type(sys.modules["torch._dynamo"]).__name__ == "module", "it is there already"
kept = lean._disable(lambda x: x + torch._dynamo.is_compiling())
assert torch.compile(lambda x: kept(x), backend="eager")(torch.zeros(1)).item() == 0
halves = lean._disable(recursive=False)(lambda x: x / 2)
assert halves(torch.ones(1)).item() == 0.5
print(type(torch._dynamo).__name__)
"""

ASKED = """
import sys, types
from slidetriage.models import lean_timm as lean
for name in [n for n in sys.modules if n.startswith("torch._dynamo")]:
    raise SystemExit(name)
with lean._compiler_later():
    import torch._dynamo
    from torch._dynamo import optimize
    from torch._dynamo.utils import counters
print(type(sys.modules["torch._dynamo"]).__name__, optimize.__module__, len(counters) >= 0)
"""


def run(program: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_scoring_tiles_never_imports_the_compiler() -> None:
    assert run(BUNDLE) == "False False"


def test_the_compiler_is_the_real_one_where_it_is_used() -> None:
    assert run(LATER) == "module"


def test_whatever_else_is_asked_for_brings_the_real_one() -> None:
    assert run(ASKED).startswith("module torch._dynamo")
