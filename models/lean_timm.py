"""timm, imported without PyTorch's compiler, which is a third of the time that timm's import takes.

At import, torchvision and timm only name two functions of `torch._dynamo`: one that a region
pooling asks when it runs, and a decorator that keeps a method from being compiled. Both are stood
in for while timm is imported, and call the real ones when they are used. Whatever else is asked of
the stand-in brings the real compiler in at once, as without it. What `import timm` gives elsewhere
is the same module. See docs/decisions/0013.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_PARTS = (_COMPILER, f"{_COMPILER}.utils")


class _StandIn(ModuleType):
    """A module with a few functions; for any other it makes way for the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own questions, which a module without them answers so
            raise AttributeError(name)
        _make_way()
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _compiler_later() -> Iterator[None]:
    """Within this, `import torch._dynamo` gives the stand-in, unless the real one was imported."""
    if _COMPILER in sys.modules:
        yield
        return
    package, utils = (_StandIn(name) for name in _PARTS)
    vars(package).update(__path__=[f"{torch.__path__[0]}/_dynamo"], utils=utils, disable=_disable)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    sys.modules.update({_PARTS[0]: package, _PARTS[1]: utils})
    try:
        yield
    finally:
        _make_way()


def _make_way() -> None:
    for name in _PARTS:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    """Ask the real function of this name."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def _disable(
    function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any
) -> Callable[..., Any]:
    """Decorate as the real decorator does, from the first call on."""
    if function is None:
        return functools.partial(_disable, recursive=recursive, **options)

    @functools.cache
    def real() -> Callable[..., Any]:
        disable: Any = torch.compiler.disable
        kept: Callable[..., Any] = disable(function, recursive, **options)
        return kept

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return real()(*arguments, **named)

    return call


with _compiler_later():
    import timm
    from timm.layers.mlp import SwiGLUPacked

__all__ = ["SwiGLUPacked", "timm"]
