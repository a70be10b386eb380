"""Novelty: the distance against a plain Mahalanobis one, and how well it tells strangers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.evaluation import (
    NoveltyReference,
    auc,
    fit_novelty,
    novelty,
    novelty_threshold,
    slide_distance,
)
from slidetriage.models.trust import novelty_reference

Features = NDArray[np.float32]


def familiar(rows: int, width: int, seed: int) -> Features:
    """Correlated features around a profile, as one encoder gives them on one tissue."""
    fixed = np.random.default_rng(99)
    mixing, profile = fixed.normal(size=(8, width)), 10 * np.abs(fixed.normal(size=width))
    rng = np.random.default_rng(seed)
    inside = rng.normal(size=(rows, 8)) @ mixing + profile
    return (inside + rng.normal(0, 0.5, (rows, width))).astype(np.float32)


def test_distance_is_mahalanobis() -> None:
    table, fresh = familiar(5000, 12, 0), familiar(200, 12, 1) * 1.5
    reference = fit_novelty(table, components=11)
    table, fresh = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (table, fresh))
    centred = fresh - table.mean(axis=0)
    inverse = np.linalg.inv(np.cov(table.T, bias=True))
    wanted = np.sqrt(np.einsum("nd,de,ne->n", centred, inverse, centred) / 12)
    # Ledoit and Wolf shrink 5,000 rows of 12 features very little.
    assert reference.distance(fresh) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("rows", [30, 400])
def test_shrinkage_is_scikit_learns(rows: int) -> None:
    table = familiar(rows, 20, 0).astype(float)
    centred = table - table.mean(axis=0)
    found = novelty.shrink_share(centred, centred.T @ centred / rows)
    assert found == pytest.approx(ledoit_wolf_shrinkage(centred, assume_centered=True))


def test_familiar_features_are_about_1() -> None:
    reference = fit_novelty(familiar(3000, 96, 0))
    distance = reference.distance(familiar(2000, 96, 1))
    assert distance.dtype == np.float32
    assert np.sqrt((distance.astype(float) ** 2).mean()) == pytest.approx(1, abs=0.05)
    assert distance.std() < 0.15


def test_strangers_are_far() -> None:
    reference = fit_novelty(familiar(3000, 96, 0))
    inside, truth = familiar(500, 96, 1), np.repeat([0, 1], 500)
    rng = np.random.default_rng(2)
    strangers = {
        "moved within the subspace": inside + 6 * (familiar(1, 96, 7) - familiar(1, 96, 8)),
        "moved out of it": inside + rng.normal(0, 0.5, 96).astype(np.float32),
        "noisier": inside + rng.normal(0, 0.4, inside.shape).astype(np.float32),
        "of other directions": inside[:, ::-1],
    }
    for name, outside in strangers.items():
        distance = reference.distance(np.concatenate([inside, outside]).astype(np.float32))
        assert auc(truth, distance) > 0.95, name


def test_a_reference_of_1280_features_is_small() -> None:
    reference = fit_novelty(familiar(400, 1280, 0))
    arrays = reference.to_arrays()
    size = sum(array.nbytes for array in arrays.values())
    assert 150_000 < size <= 200_000
    assert all(array.dtype == np.float32 for array in arrays.values())
    again = NoveltyReference.from_arrays(arrays)
    fresh = familiar(50, 1280, 1)
    assert again.distance(fresh).tolist() == reference.distance(fresh).tolist()


def test_blocks_and_half_precision_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, fresh = fit_novelty(familiar(500, 32, 0)), familiar(100, 32, 1)
    whole = reference.distance(fresh)
    assert reference.distance(fresh.astype(np.float16)) == pytest.approx(whole, rel=5e-3)
    monkeypatch.setattr(novelty_reference, "_ROWS_AT_ONCE", 7)
    assert reference.distance(fresh) == pytest.approx(whole, rel=1e-5)


def test_dead_features_stay_finite() -> None:
    table = familiar(500, 32, 0)
    table[:, :24] = 0
    distance = fit_novelty(table).distance(table)
    assert np.isfinite(distance).all()
    woken = table.copy()
    woken[:, 0] = 1
    found = fit_novelty(table).distance(woken)
    assert ((found > 2 * distance.max()) & (found < 100)).all()


def test_how_strongly_a_tile_excites_does_not_matter() -> None:
    reference, fresh = fit_novelty(familiar(500, 32, 0)), familiar(100, 32, 1)
    assert reference.distance(fresh * 3) == pytest.approx(reference.distance(fresh), rel=1e-4)
    assert np.isfinite(reference.distance(np.zeros((1, 32), np.float32))).all()


def test_threshold_keeps_its_promise() -> None:
    """Over 100 draws of 99 slides, on average 5 % of new ones are called novel."""
    rng = np.random.default_rng(0)
    rates = [
        (rng.gamma(5, 1, 2000) > novelty_threshold(rng.gamma(5, 1, 99), kept=0.95)).mean()
        for _ in range(100)
    ]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)
    assert novelty_threshold(np.arange(1, 100), kept=0.99) == 99
    with pytest.raises(UsageError, match=r"98 slides cannot fix a rate of 0.01; 99 are needed"):
        novelty_threshold(np.arange(98), kept=0.99)


def test_slide_distance() -> None:
    assert slide_distance([1, 2, 9]) == 2
    assert slide_distance([1, 2, 9], quantile=1) == 9
    with pytest.raises(UsageError, match="no tiles"):
        slide_distance([])


def test_bad_features() -> None:
    reference = fit_novelty(familiar(200, 16, 0))
    with pytest.raises(UsageError, match="8 columns, the reference 16"):
        reference.distance(familiar(5, 8, 0))
    with pytest.raises(UsageError, match="NaN or infinity"):
        reference.distance(np.full((2, 16), np.nan))
    with pytest.raises(UsageError, match="shape"):
        reference.distance(np.zeros(16))
    with pytest.raises(UsageError, match="20 rows cannot fix 15 directions"):
        fit_novelty(familiar(20, 16, 0))
    with pytest.raises(UsageError, match="components is 16 for 16 features"):
        fit_novelty(familiar(200, 16, 0), components=16)
    with pytest.raises(UsageError, match="Every row of the features is the same"):
        fit_novelty(np.ones((50, 8), np.float32))


def test_damaged() -> None:
    arrays = fit_novelty(familiar(200, 16, 0)).to_arrays()
    for name, wrong in (
        ("mean", arrays["mean"][:-1]),
        ("mean", arrays["mean"] * np.float32(np.nan)),
        ("components", arrays["components"][:, 0]),
        ("variances", -arrays["variances"]),
        ("variances", arrays["variances"].astype(np.float64)),
        ("residual_variance", arrays["residual_variance"][0]),
        ("scale", arrays["scale"] * 0),
    ):
        with pytest.raises(ModelError, match="novelty reference is not one"):
            NoveltyReference.from_arrays(arrays | {name: wrong})
    del arrays["mean"]
    with pytest.raises(ModelError, match="it holds"):
        NoveltyReference.from_arrays(arrays)
