"""How well a bundle does on the test patients of its fold, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from slidetriage.models import Card, Metric
from slidetriage.models.evaluation import (
    Interval,
    auc,
    brier_score,
    calibration_error,
    wilson_interval,
)
from slidetriage.workflows.verdicts import Judgement, judge

from .bundle_scoring import ScoredSlides
from .predictions import TEST, Numbers, Predictions
from .report_shares import Rows, Tested

REPEATS = 1000
"""Of the bootstrap over patients."""

BINS, SLIDES_PER_BIN = 15, 10
"""Of the calibration error: at most so many, each of at least so many slides; smaller ones would
measure chance."""

Figures = dict[str, Interval | None]


def measure_bundle(card: Card, slides: ScoredSlides) -> tuple[tuple[Metric, ...], tuple[str, ...]]:
    """The figures of a calibrated card on slides that nothing was fitted to or chosen on.

    Returns
    -------
    The metrics, and a sentence on those that these slides are too few for.
    """
    if not len(slides):
        return (), ("The fold has no test patients: nothing was measured.",)
    assert card.calibration is not None  # fitted before anything is measured
    score = card.calibration.apply(slides.score)
    tested = _as_tested(card, slides, score)
    figures = _measure_score(card, slides, score, tested)
    figures |= _measure_verdicts(card, slides, score, tested)
    where = f"{len(slides)} slides of {slides.count_patients()} test patients"
    metrics, missing = list[Metric](), list[str]()
    for name, each in figures.items():
        if each is None or not np.isfinite((each.value, each.low, each.high)).all():
            missing.append(name)
        else:
            value, low, high = (round(v, 4) for v in (each.value, each.low, each.high))
            told = f"{where}, {_bins(slides)} bins" if "calibration error" in name else where
            metrics.append(Metric(name, value, low, high, told))
    if not missing:
        return tuple(metrics), ()
    return tuple(metrics), (f"Too few test patients to measure: {', '.join(missing)}.",)


def _as_tested(card: Card, slides: ScoredSlides, score: Numbers) -> Tested:
    """The slides as a report has them, for its intervals."""
    count = len(slides)
    negative = next(each for each in card.classes if not each.positive)
    table = Predictions(
        kind="classes",
        classes=(negative.name, card.positive.name),
        slide=slides.slide,
        patient=slides.patient,
        fold=np.full(count, "fold"),
        seed=np.zeros(count, np.int64),
        part=np.full(count, TEST),
        score=np.stack([1 - score, score], axis=1),
        label=slides.positive.astype(np.float64),
    )
    return Tested.of(table, repeats=REPEATS, seed=0)


def _measure_score(card: Card, slides: ScoredSlides, score: Numbers, tested: Tested) -> Figures:
    positive, raw = slides.positive, slides.score
    called = score >= card.slide_threshold.value

    def interval(statistic: Callable[..., float], values: Numbers) -> Interval | None:
        return tested.interval(lambda rows: statistic(positive[rows], values[rows]))

    def error(label: NDArray[np.bool_], values: Numbers) -> float:
        return calibration_error(label, values, bins=_bins(slides)).value

    return {
        "slide AUC": interval(auc, score),
        "slide sensitivity": tested.share(called, positive),
        "slide specificity": tested.share(~called, ~positive),
        "slide Brier score": interval(brier_score, score),
        "slide Brier score before calibration": interval(brier_score, raw),
        "slide expected calibration error": interval(error, score),
        "slide expected calibration error before calibration": interval(error, raw),
    }


def _measure_verdicts(card: Card, slides: ScoredSlides, score: Numbers, tested: Tested) -> Figures:
    """What `slidetriage run` would say of these slides, all of their tissue read."""
    positive, found = slides.positive, _judge_all(card, slides, score)
    figures: Figures = {}
    if card.conformal is not None:
        held = card.conformal.sets(score)[np.arange(len(slides)), positive.astype(np.int64)]
        figures["conformal coverage"] = tested.share(held)
        figures["conformal coverage of positive slides"] = tested.share(held, positive)
        figures["conformal coverage of negative slides"] = tested.share(held, ~positive)
    if card.conformal is not None or card.novelty is not None:
        eyes = np.array([each.verdict == "needs eyes" for each in found])
        figures["slides that need eyes"] = tested.share(eyes)
    if card.rule_out is not None:
        out = np.array([each.ruled_out for each in found])
        figures["slides ruled out"] = tested.share(out)
        figures["tissue tiles ruled out"] = _share_of_tiles(slides, out, tested)
        figures["positive slides not ruled out"] = tested.share(~out, positive)
    return figures


def _judge_all(card: Card, slides: ScoredSlides, score: Numbers) -> list[Judgement]:
    distances = slides.distances
    return [
        judge(card, float(p), None if distances is None else float(distances[row]), missing=0)
        for row, p in enumerate(score)
    ]


def _share_of_tiles(
    slides: ScoredSlides, out: NDArray[np.bool_], tested: Tested
) -> Interval | None:
    tiles = slides.tiles

    def share(rows: Rows) -> float:
        return float(tiles[rows][out[rows]].sum() / tiles[rows].sum())

    if not out.any() or out.all():  # as in `Tested.share`
        patients = slides.count_patients()
        low, high = wilson_interval(float(out.all()) * patients, patients)
        return Interval(float(out.all()), float(low), float(high), 0.95, REPEATS, 0)
    return tested.interval(share)


def _bins(slides: ScoredSlides) -> int:
    return min(BINS, max(1, len(slides) // SLIDES_PER_BIN))
