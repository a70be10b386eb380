"""What is fitted where slides are few, of one class, of the same patients, or ranked wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slidetriage.errors import UsageError
from slidetriage.models import Card, load_bundle
from slidetriage.workflows.research.bundle_card import make_name
from slidetriage.workflows.research.bundle_figures import measure_bundle
from slidetriage.workflows.research.bundle_fitting import Wishes, fit_bundle
from slidetriage.workflows.research.bundle_scoring import ScoredSlides


def make_slides(
    count: int, *, per_patient: int = 1, seed: int = 0, novelty: bool = True
) -> ScoredSlides:
    """Half of them positive, and scored higher on the whole."""
    rng = np.random.default_rng(seed)
    positive = np.arange(count) // per_patient % 2 == 1
    logit = rng.normal(2.0 * positive - 1, 1)
    tiles = [rng.uniform(0, 0.9, 20).astype(np.float32) for _ in range(count)]
    distances = [rng.uniform(0.8, 1.2, 20).astype(np.float32) for _ in range(count)]
    return ScoredSlides(
        slide=np.array([f"s{n}" for n in range(count)]),
        patient=np.array([f"P{n // per_patient}" for n in range(count)]),
        positive=positive,
        score=1 / (1 + np.exp(-logit)),
        tile_scores=tuple(tiles),
        tile_distances=tuple(distances) if novelty else None,
    )


def sharpen(slides: ScoredSlides) -> ScoredSlides:
    """The same with logits six times as far from 0 as they may be."""
    logit = np.log(slides.score / (1 - slides.score))
    return replace(slides, score=1 / (1 + np.exp(-12 * logit)))


@pytest.fixture(scope="module")
def card() -> Card:
    return load_bundle("breast-idc-scout").card


def calibrated(card: Card, slides: ScoredSlides, wishes: Wishes | None = None) -> Card:
    fitted = fit_bundle(slides, wishes or Wishes())
    return replace(
        card,
        calibration=fitted.calibration,
        slide_threshold=fitted.slide_threshold,
        rule_out=fitted.rule_out,
        conformal=fitted.conformal,
        novelty=fitted.novelty,
    )


def test_few_slides_give_a_threshold_and_no_promise() -> None:
    fitted = fit_bundle(make_slides(12), Wishes())
    assert (fitted.rule_out, fitted.conformal, fitted.novelty) == (None, None, None)
    assert fitted.slide_threshold.sensitivity == 1
    assert fitted.slide_threshold.chosen.endswith("and so the score of the lowest")
    assert len(fitted.warnings) == 3
    said = " ".join(fitted.warnings)
    assert "6 validation patients with a positive slide" in said
    assert "100 are needed" in said
    assert "299 to promise it" in said
    assert "an error rate of 0.1 needs 11" in said
    assert "19 are needed" in said


def test_a_rule_out_needs_patients_not_slides() -> None:
    """110 positive slides are enough of as many patients, and are not of half as many."""
    many = fit_bundle(make_slides(220), Wishes())
    assert many.rule_out is not None
    assert many.rule_out.sensitivity == pytest.approx(109 / 110, abs=1e-4)
    assert "score of the lowest" not in many.rule_out.chosen
    (warning,) = many.warnings
    assert "299 patients would be needed" in warning
    few = fit_bundle(make_slides(220, per_patient=2), Wishes())
    assert few.rule_out is None
    assert "55 validation patients with a positive slide" in " ".join(few.warnings)
    assert few.conformal is not None
    assert few.conformal.fitted_on == (55, 55)
    sure = fit_bundle(make_slides(220), Wishes(rule_out=0.9))
    assert sure.rule_out is not None
    assert sure.warnings == ()


@pytest.mark.parametrize("kind", ["platt", "isotonic", "temperature"])
def test_scores_mean_more_after_calibration(kind: str, card: Card) -> None:
    fitted, other = (sharpen(make_slides(600, seed=seed)) for seed in (0, 1))
    card = calibrated(card, fitted, Wishes(kind))  # type: ignore[arg-type]  # one of three
    metrics, warnings = measure_bundle(card, other)
    value = {metric.name: metric.value for metric in metrics}
    for name in ("slide Brier score", "slide expected calibration error"):
        assert value[name] < 0.9 * value[f"{name} before calibration"]
    assert value["slide expected calibration error"] < 0.05
    assert value["conformal coverage"] == pytest.approx(0.9, abs=0.04)
    assert value["slide sensitivity"] == pytest.approx(0.95, abs=0.03)
    assert warnings == ()
    assert metrics[0].measured_on == "600 slides of 600 test patients"


def test_scores_of_one_class_or_ranked_wrongly_are_refused() -> None:
    slides = make_slides(40)
    for label in (np.zeros(40, np.bool_), np.ones(40, np.bool_)):
        with pytest.raises(UsageError, match="calibrated on one class"):
            fit_bundle(replace(slides, positive=label), Wishes())
    with pytest.raises(UsageError, match=r"does not rank positives above negatives \(AUC 0\.0"):
        fit_bundle(replace(slides, score=1 - slides.score), Wishes())
    with pytest.raises(UsageError, match=r"AUC 0\.50"):
        fit_bundle(replace(slides, score=np.full(40, 0.3)), Wishes())


def test_tiles_that_are_all_sure_leave_a_threshold_that_can_be() -> None:
    slides = make_slides(40)
    sure = tuple(np.ones(20, np.float32) for _ in range(40))
    point = fit_bundle(replace(slides, tile_scores=sure), Wishes()).tile_threshold
    assert point.value == 1
    assert point.specificity == 0, "no tile of a negative slide lies below it, and the card says so"
    assert point.sensitivity == 1


def test_without_a_reference_nothing_is_novel(card: Card) -> None:
    slides = make_slides(60, novelty=False)
    assert fit_bundle(slides, Wishes()).novelty is None
    metrics, _ = measure_bundle(calibrated(card, slides), make_slides(60, seed=1, novelty=False))
    assert "slides that need eyes" in {metric.name for metric in metrics}


def test_what_few_test_patients_cannot_show_is_left_out_and_said(card: Card) -> None:
    ready = calibrated(card, make_slides(60))
    none = make_slides(0)
    assert measure_bundle(ready, none) == (
        (),
        ("The fold has no test patients: nothing was measured.",),
    )
    ten = make_slides(10, seed=2)
    one_class = replace(ten, positive=np.zeros(10, np.bool_))
    metrics, (warning,) = measure_bundle(ready, one_class)
    names = {metric.name for metric in metrics}
    assert {"slide specificity", "slide Brier score", "conformal coverage"} <= names
    assert "slide AUC" not in names
    assert warning.startswith("Too few test patients to measure: slide AUC, slide sensitivity")
    assert all(np.isfinite((m.value, m.low, m.high)).all() for m in metrics)
    alone = replace(ten, patient=np.full(10, "P0"))
    metrics, (warning,) = measure_bundle(ready, alone)
    assert "slide AUC" not in {metric.name for metric in metrics}, "one patient has no interval"


def test_folders_name_bundles() -> None:
    assert make_name("Grade 2_vs_3/") == "grade-2-vs-3"
    assert make_name("研究") == "bundle"
