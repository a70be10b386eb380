"""The heads by name, and how to build one from its name and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from slidetriage.errors import UsageError

from .attention import AttentionHead
from .clam import ClamHead
from .contract import Head
from .dsmil import DualStreamHead
from .nnmil import FeatureSamplingHead
from .pooling import PoolingHead
from .transmil import TransformerHead

HEADS: dict[str, Callable[..., Head]] = {
    "attention": partial(AttentionHead, gated=False),
    "clam_mb": partial(ClamHead, multi_branch=True),
    "clam_sb": partial(ClamHead, multi_branch=False),
    "dsmil": DualStreamHead,
    "gated_attention": partial(AttentionHead, gated=True),
    "max": partial(PoolingHead, pool="max"),
    "mean": partial(PoolingHead, pool="mean"),
    "nnmil": FeatureSamplingHead,
    "transmil": TransformerHead,
}
"""Name -> what builds the head from `features`, `outputs` and its own arguments."""


def list_heads() -> list[str]:
    """Return the names of the heads, sorted."""
    return sorted(HEADS)


def build_head(name: str, features: int, outputs: int, **arguments: Any) -> Head:
    """Build a head with new random weights, drawn from torch's global generator.

    Parameters
    ----------
    name
        One of `list_heads()`.
    features, outputs
        Numbers per tile and logits per slide.
    **arguments
        What the head's class takes by keyword, except what its name settles.

    Raises
    ------
    UsageError
        The name, an argument or a value is none that the head knows.
    """
    known = head_arguments(name)
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise UsageError(
            f"The head {name} takes no {', '.join(unknown)}.",
            mend=f"It takes {', '.join(known)}.",
        )
    for argument, value in arguments.items():
        if isinstance(known[argument], bool) and not isinstance(value, bool):
            raise UsageError(
                f"{argument} of the head {name} must be true or false, not {value!r}.",
                mend=f"Leave it out for {known[argument]}.",
            )
    return HEADS[name](features, outputs, **arguments)


def head_arguments(name: str) -> dict[str, Any]:
    """Return the arguments that a head takes, with their defaults.

    Raises `UsageError` for names that are no head's.
    """
    if name not in HEADS:
        raise UsageError(
            f"There is no head {name!r}.", mend=f"Choose one of {', '.join(list_heads())}."
        )
    builder = HEADS[name]
    settled = builder.keywords if isinstance(builder, partial) else {}
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in settled
    }
