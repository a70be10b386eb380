"""Bags of random tiles, with and without padding, for every test of a head."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

FEATURES = 6


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


@pytest.fixture
def bags() -> list[Tensor]:
    """Bags of 1, 4, 11 and 2 tiles of 6 features."""
    rng = np.random.default_rng(3)
    return [torch.from_numpy(rng.normal(size=(count, FEATURES))) for count in (1, 4, 11, 2)]


@pytest.fixture
def pad() -> Callable[[list[Tensor]], tuple[Tensor, Tensor]]:
    """Puts bags into one batch, their tiles in order but between padding of large numbers."""

    def pad(bags: list[Tensor], *, filler: float = 1e3) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(5)
        length = max(map(len, bags)) + 3
        features = torch.full((len(bags), length, bags[0].shape[1]), filler, dtype=bags[0].dtype)
        mask = torch.zeros(len(bags), length, dtype=torch.bool)
        for index, bag in enumerate(bags):
            where = torch.from_numpy(np.sort(rng.permutation(length)[: len(bag)]))
            features[index, where], mask[index, where] = bag, True
        return features, mask

    return pad
