"""How near predicted numbers come to true ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from slidetriage.models.trust.inputs import as_numbers, refuse


@dataclass(frozen=True, slots=True)
class RegressionFigures:
    """Errors and agreement of N predictions; NaN where all true or all predicted are alike."""

    mean_absolute_error: float
    root_mean_squared_error: float
    r2: float
    """1 - squared error / squared error of the mean; below 0 is worse than the mean."""
    pearson: float
    spearman: float


def regression_figures(true: ArrayLike, predicted: ArrayLike) -> RegressionFigures:
    """All figures of N finite predictions against N finite true numbers, N at least 2."""
    wanted = as_numbers(true, "label")
    found = as_numbers(predicted, "score", count=len(wanted))
    if len(wanted) < 2:
        raise refuse(f"The table has {len(wanted)} rows.", "Give at least two.")
    off = found - wanted
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    return RegressionFigures(
        mean_absolute_error=float(np.abs(off).mean()),
        root_mean_squared_error=float(np.sqrt((off**2).mean())),
        r2=1 - float((off**2).sum()) / spread if spread else float("nan"),
        pearson=_correlate(wanted, found),
        spearman=_correlate(rankdata(wanted), rankdata(found)),
    )


def _correlate(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    x, y = a - a.mean(), b - b.mean()
    length = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float(x @ y) / length if length else float("nan")
