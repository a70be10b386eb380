"""Fitting a compact reference of the features a model learned from, and its limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.models.trust import NoveltyReference, slide_distance
from slidetriage.models.trust.inputs import as_numbers, refuse
from slidetriage.models.trust.novelty_reference import as_features, to_unit_length

__all__ = ["fit_novelty", "novelty_threshold", "shrink_share", "slide_distance"]

_MOST_NUMBERS = 50_000
_MOST_COMPONENTS = 64
_MOST_ROWS = 20_000
_LEAST_SCALE = 0.1


def fit_novelty(
    features: NDArray[np.floating], *, components: int | None = None, seed: int = 0
) -> NoveltyReference:
    """The reference of N x D training features.

    `components` is K; by default as many as keep the reference under 200 kB, at most 64. Past
    20,000 rows a random 20,000 are used. At least 2 K rows are needed.
    """
    table = as_features(features)
    width = table.shape[1]
    most = min(_MOST_COMPONENTS, (_MOST_NUMBERS - 2 * width - 1) // (width + 1), width - 1)
    k = max(1, most) if components is None else components
    if not 1 <= k < width:
        raise refuse(f"components is {k} for {width} features.", f"Give 1 to {width - 1}.")
    if len(table) < 2 * k:
        raise refuse(
            f"{len(table)} rows cannot fix {k} directions.",
            "Bring more tiles, or ask for at most half as many components as rows.",
        )
    if len(table) > _MOST_ROWS:
        table = table[np.random.default_rng(seed).choice(len(table), _MOST_ROWS, replace=False)]
    exact = to_unit_length(table.astype(np.float64))
    mean, scale = exact.mean(axis=0), exact.std(axis=0)
    if scale.max() <= 1e-9:
        raise refuse("Every row of the features is the same.", "Check the encoder.")
    # A feature that hardly ever fired would make any tile in which it does infinitely far.
    scale = scale.clip(min=_LEAST_SCALE * scale.mean())
    centred = (exact - mean) / scale
    covariance = centred.T @ centred / len(centred)  # D x D
    values, vectors = np.linalg.eigh(covariance)  # rising
    shrinkage = shrink_share(centred, covariance)
    values = (1 - shrinkage) * values.clip(min=0) + shrinkage * values.mean()
    residual = max(float(values[:-k].mean()), float(values.mean()) * 1e-6)
    return NoveltyReference(
        mean.astype(np.float32),
        scale.astype(np.float32),
        np.ascontiguousarray(vectors[:, : -k - 1 : -1].T, dtype=np.float32),
        values[: -k - 1 : -1].clip(min=residual).astype(np.float32),
        np.array([residual], np.float32),
    )


def shrink_share(centred: NDArray[np.float64], covariance: NDArray[np.float64]) -> float:
    """Ledoit and Wolf's (2004) share, 0 to 1, by which D x D is drawn to its mean variance."""
    n, width = centred.shape
    squared = float((covariance**2).sum())
    apart = squared - float(np.trace(covariance)) ** 2 / width
    noise = (float(((centred**2).sum(axis=1) ** 2).mean()) - squared) / n
    return min(max(noise, 0.0), apart) / apart if apart > 0 else 0.0


def novelty_threshold(slide_distances: ArrayLike, *, kept: float = 0.99) -> float:
    """The distance that `kept` of held-out familiar slides do not exceed.

    The conformal quantile, the ceil((N + 1) kept)-th smallest, so that new slides of the same kind
    are called novel at most at the rate 1 - kept. Slides of patients not in the reference.
    """
    distances = np.sort(as_numbers(slide_distances, "slide_distances"))
    if not 0 < kept < 1:
        raise refuse(f"kept is {kept}.", "Give a number between 0 and 1, such as 0.99.")
    rank = int(np.ceil((len(distances) + 1) * kept - 1e-9))
    if rank > len(distances):
        raise refuse(
            f"{len(distances)} slides cannot fix a rate of {1 - kept:.3g}; "
            f"{int(np.ceil(kept / (1 - kept) - 1e-9))} are needed.",
            "Bring more held-out slides, or keep fewer.",
        )
    return float(distances[rank - 1])
