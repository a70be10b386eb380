"""Loops over pixels, compiled by numba, which takes a while to import: import this where needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(loop: Loop) -> Loop:
    """Compile (a second, once for a machine; later it is loaded from numba's cache)."""
    options = {"nogil": True, "boundscheck": False}
    try:
        kernel: Loop = numba.njit(loop, cache=True, **options)
    except RuntimeError:  # nowhere to keep the compiled code: neither beside its file nor at home
        kernel = numba.njit(loop, **options)
    return kernel
