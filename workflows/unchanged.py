"""Whether a slide was read well enough to say anything of it: not too many gaps, and unchanged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import PixelsUnreadable
from slidetriage.wsi import file_signatures

from .decoding import Decoder
from .settings import Settings
from .steps import SlidePlan


def check_gaps(plan: SlidePlan, read: NDArray[np.bool_], settings: Settings, error: str) -> None:
    """Raise `PixelsUnreadable` where more tiles are missing than may be."""
    missing = int((~read).sum())
    if missing > max(1, settings.max_unreadable * len(read)) or (missing and not read.any()):
        raise PixelsUnreadable(
            f"{plan.slide.path.name}: {missing} of {len(read)} tissue tiles could not be read"
            + (f" (one of them: {error.rstrip('.')})." if error else "."),
            mend="Copy the slide again, or allow more with --max-unreadable.",
            code="E_TOO_MANY_GAPS",
        )


def check_unchanged(plan: SlidePlan, decoder: Decoder) -> None:
    """Raise `PixelsUnreadable` (E_UNSTABLE) where the slide is not what was planned.

    It is read through again only where one of its files was touched.
    """
    try:
        touched = file_signatures(plan.slide.files) != plan.signatures
    except OSError:
        touched = True
    if touched and decoder.hash(plan.slide) != plan.sha256:
        raise PixelsUnreadable(
            f"{plan.slide.path.name}: the file changed while it was read.",
            mend="Wait until it is written completely, then run again.",
            code="E_UNSTABLE",
        )
