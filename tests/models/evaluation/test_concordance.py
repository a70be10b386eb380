"""Concordance by counting pairs one by one, and Uno's weights by hand and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import auc, concordance, harrell_concordance, uno_concordance

Row = tuple[int, bool, int]


def count_pairs(rows: list[Row]) -> tuple[int, int, int]:
    """Concordant, discordant and tied, by the definition."""
    right = wrong = tied = 0
    for time, event, risk in rows:
        for other_time, other_event, other_risk in rows:
            first = time < other_time or (time == other_time and not other_event)
            if event and first:
                right += risk > other_risk
                wrong += risk < other_risk
                tied += risk == other_risk
    return right, wrong, tied


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 4)), max_size=30))
def test_by_counting(rows: list[Row]) -> None:
    rows = [*rows, (3, True, 1), (4, False, 0)]
    time, event, risk = (np.array(column) for column in zip(*rows, strict=True))
    found = harrell_concordance(time, event, risk)
    right, wrong, tied = count_pairs(rows)
    assert (found.concordant, found.discordant, found.tied_risk) == (right, wrong, tied)
    assert found.value == pytest.approx((right + tied / 2) / (right + wrong + tied))


def test_blocks_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table = rng.exponential(1, 90), rng.random(90) < 0.5, rng.normal(size=90)
    whole, weighted = harrell_concordance(*table), uno_concordance(*table)
    monkeypatch.setattr(concordance, "_PAIRS_AT_ONCE", 90 * 7)
    assert harrell_concordance(*table) == whole
    assert uno_concordance(*table) == pytest.approx(weighted)


def test_two_times_are_an_auc() -> None:
    """All events at 1 and all others still there at 2: concordance is the AUC."""
    rng = np.random.default_rng(1)
    event = rng.random(200) < 0.4
    risk = np.round(rng.normal(size=200) + event, 1)
    assert harrell_concordance(2 - event, event, risk).value == pytest.approx(auc(event, risk))


def test_without_censoring_both_agree() -> None:
    rng = np.random.default_rng(0)
    time, risk = rng.exponential(1, 60), rng.normal(size=60)
    harrell = harrell_concordance(time, np.ones(60), risk).value
    assert uno_concordance(time, np.ones(60), risk) == pytest.approx(harrell)


def test_uno_by_hand() -> None:
    # Censored at 2 (of four at risk then: G falls to 3/4) and 5; events at 1, 3 and 4.
    time, event, risk = [1, 2, 3, 4, 5], [1, 0, 1, 1, 0], [5, 1, 2, 3, 0]
    # At 1 (G = 1): 4 of 4 right. At 3 (G = 3/4): 1 of 2. At 4 (G = 3/4): 1 of 1.
    weight = (4 / 3) ** 2
    wanted = (4 + weight * 2) / (4 + weight * 3)
    assert uno_concordance(time, event, risk) == pytest.approx(wanted)
    assert uno_concordance(time, event, risk, horizon=3.5) == pytest.approx(
        (4 + weight) / (4 + weight * 2)
    )
    assert uno_concordance(time, event, risk, horizon=3) == 1


def test_uno_by_hand_with_an_event_as_another_is_censored() -> None:
    # At 2 one of four has an event, then one of the three left is censored: G falls to 2/3.
    time, event, risk = [2, 2, 3, 4], [1, 0, 1, 0], [1, 0, 0, 3]
    # At 2 (G = 1): right over two, wrong over one. At 3 (G = 2/3): wrong over one.
    weight = (3 / 2) ** 2
    assert uno_concordance(time, event, risk) == pytest.approx(2 / (3 + weight))


def test_uno_does_not_move_with_censoring() -> None:
    """A risk that works early only: Harrell's rises with censoring, Uno's stays."""
    rng = np.random.default_rng(0)
    death = rng.uniform(0, 2, 4000)
    risk = np.where(death < 1, -death, rng.uniform(-2, -1, 4000))  # ranks nothing after 1
    truth = harrell_concordance(np.minimum(death, 1.8), death < 1.8, risk).value
    left = rng.exponential(1.2, 4000)
    time, event = np.minimum(death, left), death <= left
    harrell = harrell_concordance(np.minimum(time, 1.8), event & (time < 1.8), risk).value
    assert harrell - truth > 0.02
    assert uno_concordance(time, event, risk, horizon=1.8) == pytest.approx(truth, abs=0.01)


def test_no_pairs() -> None:
    with pytest.raises(UsageError, match="No pair"):
        harrell_concordance([1, 2], [0, 0], [1, 2])
    with pytest.raises(UsageError, match="No pair"):
        uno_concordance([1, 1], [1, 1], [1, 2])
    with pytest.raises(UsageError, match="risk is NaN"):
        harrell_concordance([1, 2], [1, 0], [1, np.nan])
