"""Choosing the threshold that keeps a stated sensitivity."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from slidetriage.models.trust.inputs import as_labels, as_numbers, as_share, refuse


def threshold_at_sensitivity(
    label: ArrayLike, score: ArrayLike, sensitivity: float, *, confidence: float | None = None
) -> float:
    """The largest threshold at which enough positives are scored at least the threshold.

    Parameters
    ----------
    label, score
        N labels (0, 1) and N finite scores.
    sensitivity
        The share of positives to be kept, above 0 and up to 1.
    confidence
        None: the share is kept on these rows. A number such as 0.95: with this confidence the
        share is kept among new positives of the same kind. The threshold is then a lower one, the
        order statistic whose sensitivity, a Beta(k, n - k + 1) variable where k of n positives are
        kept, has its lower one-sided bound (Clopper-Pearson) at `sensitivity` or above. It holds
        for independent positives: give one row per patient.

    Raises
    ------
    UsageError
        Also where there are too few positives for the confidence asked for.
    """
    if not 0 < sensitivity <= 1:
        raise refuse(f"sensitivity is {sensitivity}.", "Give a number above 0 and up to 1.")
    positive = as_labels(label)
    scores = as_numbers(score, "score", count=len(positive))
    falling = np.sort(scores[positive])[::-1]  # of the positives
    if confidence is None:
        kept = math.ceil(sensitivity * len(falling) - 1e-9)  # 0.55 * 100 is 55.00000000000001
    else:
        kept = _kept_with_confidence(len(falling), sensitivity, as_share(confidence, "confidence"))
    return float(falling[max(kept, 1) - 1])


def positives_needed(sensitivity: float, confidence: float) -> int:
    """The fewest positives from which `sensitivity` can be promised with `confidence`."""
    as_share(sensitivity, "sensitivity")
    return math.ceil(math.log(1 - as_share(confidence, "confidence")) / math.log(sensitivity))


def _kept_with_confidence(positives: int, sensitivity: float, confidence: float) -> int:
    kept = np.arange(1, positives + 1)
    bound = beta.ppf(1 - confidence, kept, positives - kept + 1)
    enough = np.flatnonzero(bound >= sensitivity)
    if len(enough) == 0:
        needed = positives_needed(sensitivity, confidence) if sensitivity < 1 else "infinitely many"
        raise refuse(
            f"{positives} positives cannot promise a sensitivity of {sensitivity:g} with "
            f"{confidence:.0%} confidence; {needed} are needed.",
            "Bring more positives, ask for less, or leave the confidence out.",
        )
    return int(kept[enough[0]])
