"""Covariates: what is fitted, what is unknown, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from slidetriage.errors import UsageError
from slidetriage.models.learning import CovariateCoder


def test_numbers_are_standardised_and_text_makes_categories() -> None:
    coder = CovariateCoder.fit({"age": [40.0, 60.0, None], "sex": ["F", "M", "F"]})
    assert coder.columns == ("age", "age unknown", "sex = F", "sex = M", "sex unknown")
    found = coder.encode({"age": [50.0, 70.0, float("nan")], "sex": ["M", "", "X"]})
    expected = [[0, 0, 0, 1, 0], [2, 0, 0, 0, 1], [0, 1, 0, 0, 1]]
    assert np.allclose(found, expected)
    assert found.dtype == np.float32


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(UsageError, match="'site' is empty or always the same"):
        CovariateCoder.fit({"site": ["A", "A", None]})
    coder = CovariateCoder.fit({"age": [40.0, 60.0]})
    with pytest.raises(UsageError, match="'age' is missing"):
        coder.encode({"sex": ["F"]})
    with pytest.raises(UsageError, match="was a number"):
        coder.encode({"age": ["old"]})
