"""A fitted scikit-learn classifier that hands its inputs back as probabilities; for MAPIE."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin


class GivenScores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn ships no types
    """Probabilities computed elsewhere, in the form of a classifier over `classes` classes."""

    def __init__(self, classes: int = 2) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)
        self.is_fitted_ = True

    def fit(self, x: ArrayLike, y: ArrayLike) -> GivenScores:
        """Nothing to do: the scores are given."""
        return self

    def predict_proba(self, x: ArrayLike) -> NDArray[np.float64]:
        """N x C, as given."""
        return np.asarray(x, np.float64)

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """The likeliest class of each row."""
        return np.asarray(np.argmax(self.predict_proba(x), axis=1))
