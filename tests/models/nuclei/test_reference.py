"""Which nuclei of a slide are the unremarkable ones, in whatever mixture they come."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from slidetriage.models.nuclei.reference import (
    least_separation,
    robust_standard,
    unremarkable_share,
)

Numbers = NDArray[np.float64]

LEAST = np.array([0.05, 0.02, 0.05])

# Mean and sd of the logarithm of the area, haematoxylin, and the logarithm of the deviation from an
# ellipse, as measured on a painted slide.
GLAND = ((3.59, 0.478, -3.48), (0.22, 0.062, 0.30))
TUMOUR = ((3.93, 0.383, -3.41), (0.27, 0.081, 0.34))
ABNORMAL = ((4.48, 0.527, -3.03), (0.30, 0.102, 0.21))


def draw(kind: tuple[tuple[float, ...], tuple[float, ...]], count: int, seed: int) -> Numbers:
    """Nuclei of one kind."""
    return np.random.default_rng(seed).normal(kind[0], kind[1], (count, 3))


def mix(glands: int, tumour: int, abnormal: int, *, shift: float = 1.0) -> tuple[Numbers, int]:
    """Nuclei of three kinds, and how many of them are ordinary; abnormal ones shifted less."""
    away = np.array(TUMOUR[0]) + shift * (np.array(ABNORMAL[0]) - TUMOUR[0])
    kinds = (
        draw(GLAND, glands, 1),
        draw(TUMOUR, tumour, 2),
        draw((tuple(away), ABNORMAL[1]), abnormal, 3),
    )
    return np.concatenate(kinds), glands + tumour


@pytest.mark.parametrize(
    "counts",
    [(5_000, 5_000, 5_300), (400, 1_000, 1_100), (1_000, 5_000, 6_000), (300, 1_000, 5_000)],
    ids=["three kinds alike", "a small slide", "mostly carcinoma", "four of five abnormal"],
)
def test_ordinary_and_abnormal_are_told_apart(counts: tuple[int, int, int]) -> None:
    features, ordinary = mix(*counts)
    share = unremarkable_share(features, LEAST)
    assert share.shape == (len(features),)
    assert share[:ordinary].mean() > 0.7
    assert share[ordinary:].mean() < 0.2
    usual = robust_standard(features, share, LEAST)
    true = robust_standard(features[:ordinary], np.ones(ordinary), LEAST)
    assert np.abs(np.subtract(usual.middle, true.middle) / true.scale).max() < 0.4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["one", "glands and tumour", "skewed", "left skewed", "tied"])
def test_without_abnormal_ones_all_are_ordinary(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = {
        "one": lambda: draw(TUMOUR, 3_000, seed),
        "glands and tumour": lambda: np.concatenate(
            [draw(GLAND, 2_000, seed), draw(TUMOUR, 1_000, seed + 9)]
        ),
        "skewed": lambda: rng.gamma(4, size=(3_000, 3)),
        "left skewed": lambda: -rng.gamma(4, size=(3_000, 3)),
        "tied": lambda: rng.normal(size=(3_000, 3)) + rng.normal(size=(3_000, 1)) * 0.6,
    }[kind]()
    share = unremarkable_share(features, LEAST)
    usual = robust_standard(features, share, LEAST)
    true = robust_standard(features, np.ones(len(features)), LEAST)
    assert np.abs(np.subtract(usual.middle, true.middle) / true.scale).max() < 0.2


def test_the_less_sure_that_there_are_two_the_less_the_upper_ones_weigh() -> None:
    """Whether there are two is no step: over a range of distances the upper ones weigh less."""
    weighed = []
    for shift in np.linspace(0.4, 1.0, 13):
        features, ordinary = mix(3_000, 4_000, 4_000, shift=shift)
        weighed.append(1 - unremarkable_share(features, LEAST)[ordinary:].mean())
    assert weighed[0] < 0.05
    assert weighed[-1] > 0.8
    assert np.diff(weighed).max() < 0.5
    assert sum(0.05 < part < 0.75 for part in weighed) >= 2


def test_order_and_unknown_numbers_change_nothing_else() -> None:
    features, ordinary = mix(300, 500, 600)
    share = unremarkable_share(features, LEAST)
    features[::50, 2] = np.nan
    found = unremarkable_share(features, LEAST)
    assert np.isfinite(found).all()
    assert np.abs(found - share).mean() < 0.05
    assert share[:ordinary].mean() > 0.7


@pytest.mark.parametrize("count", [50, 51, 200])
def test_alike_nuclei_are_one_population(count: int) -> None:
    assert (unremarkable_share(np.ones((count, 3)), LEAST) == 1).all()
    few = np.ones((count, 3))
    few[0] = 9
    assert (unremarkable_share(few, LEAST) == 1).all()


def test_fewer_nuclei_must_lie_further_apart() -> None:
    asked = [least_separation(count) for count in (200, 1_000, 4_000)]
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == pytest.approx(2.57, abs=0.01)
    assert asked[2] == pytest.approx(2.13, abs=0.01)
