"""From uncalibrated scores of validation slides to what a bundle may say, and what it may not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

from slidetriage.errors import UsageError
from slidetriage.models import NoveltyCard, OperatingPoint
from slidetriage.models.evaluation import (
    auc,
    confusion_at,
    fit_conformal,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    novelty_threshold,
    positives_needed,
    threshold_at_sensitivity,
)
from slidetriage.models.trust import Calibrator, ConformalRule
from slidetriage.models.trust.calibrator import Kind

from .bundle_scoring import QUANTILE, ScoredSlides
from .predictions import Numbers

NEGATIVE_TILES = 0.99
"""Share of the tiles of negative slides that score below the tile threshold."""

CONFIDENCE = 0.95

_FITS = {"platt": fit_platt, "isotonic": fit_isotonic, "temperature": fit_temperature}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be kept on validation patients; raises `UsageError` for what cannot be."""

    calibration: Kind = "platt"
    sensitivity: float = 0.95
    """Of the slide threshold."""
    rule_out: float = 0.99
    """The sensitivity below whose threshold a slide needs no look."""
    error_rate: float = 0.1
    """Of the conformal rule, within each class."""
    familiar: float = 0.95
    """Share of familiar slides that are not to be called novel."""

    def __post_init__(self) -> None:
        if self.calibration not in get_args(Kind):
            raise UsageError(
                f"There is no calibration {self.calibration!r}.",
                mend=f"Choose {', '.join(_FITS)}.",
            )
        for name in ("sensitivity", "rule_out", "error_rate", "familiar"):
            value = getattr(self, name)
            if not 0 < value < 1:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is {value:g}.", mend="Give a number between 0 and 1.")


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted on validation patients."""

    calibration: Calibrator
    tile_threshold: OperatingPoint
    slide_threshold: OperatingPoint
    rule_out: OperatingPoint | None
    conformal: ConformalRule | None
    novelty: NoveltyCard | None
    warnings: tuple[str, ...]
    """Why parts are missing; whole sentences."""


def fit_bundle(slides: ScoredSlides, wishes: Wishes) -> Fitted:
    """Fit everything that turns a score into a verdict.

    Raises
    ------
    UsageError
        The validation slides are of one class, or scores do not rank positives above negatives.
    """
    _check_slides(slides)
    calibration = _FITS[wishes.calibration](slides.positive, slides.score)
    if calibration.kind == "platt" and calibration.numbers[0] <= 0:
        raise _ranks_wrongly(slides)
    score = calibration.apply(slides.score)
    warnings: list[str] = []
    return Fitted(
        calibration=calibration,
        tile_threshold=_choose_tile_threshold(slides),
        slide_threshold=_choose_threshold(slides, score, wishes.sensitivity),
        rule_out=_choose_rule_out(slides, score, wishes.rule_out, warnings),
        conformal=_fit_rule(slides, score, wishes.error_rate, warnings),
        novelty=_choose_novelty(slides, wishes.familiar, warnings),
        warnings=tuple(warnings),
    )


def _check_slides(slides: ScoredSlides) -> None:
    positives = int(slides.positive.sum())
    if positives in (0, len(slides)):
        raise UsageError(
            f"Of {len(slides)} validation slides {positives} are positive: nothing can be "
            "calibrated on one class.",
            mend="Choose another --training, or train with fewer folds.",
        )
    if auc(slides.positive, slides.score) <= 0.5:
        raise _ranks_wrongly(slides)


def _ranks_wrongly(slides: ScoredSlides) -> UsageError:
    area = auc(slides.positive, slides.score)
    return UsageError(
        f"On the validation slides this training does not rank positives above negatives (AUC "
        f"{area:.2f}): its score means nothing.",
        mend="Choose another --training, or train otherwise.",
    )


def _choose_threshold(slides: ScoredSlides, score: Numbers, kept: float) -> OperatingPoint:
    """The highest threshold that keeps a sensitivity on the validation slides."""
    value = threshold_at_sensitivity(slides.positive, score, kept)
    counts = confusion_at(slides.positive, score, value)
    positives, patients = int(slides.positive.sum()), slides.count_patients(slides.positive)
    alone = ", and so the score of the lowest" if positives < _needed(kept) else ""
    return OperatingPoint(
        value=value,
        chosen=f"highest with sensitivity of at least {kept:g} on the {positives} positive slides "
        f"of {patients} validation patients{alone}",
        measured_on=_say_slides(slides),
        sensitivity=round(counts.sensitivity, 4),
        specificity=round(counts.specificity, 4),
    )


def _choose_rule_out(
    slides: ScoredSlides, score: Numbers, kept: float, warnings: list[str]
) -> OperatingPoint | None:
    """As the slide threshold; None where it would only be the score of the lowest positive."""
    positives, patients = int(slides.positive.sum()), slides.count_patients(slides.positive)
    sure = positives_needed(kept, CONFIDENCE)
    if patients < _needed(kept):
        warnings.append(
            f"No slide is ruled out: {patients} validation patients with a positive slide cannot "
            f"show a sensitivity of {kept:g}. {_needed(kept)} are needed for a threshold that is "
            f"more than the lowest score among them, and {sure} to promise it with "
            f"{CONFIDENCE:.0%} confidence."
        )
        return None
    if patients < sure:
        warnings.append(
            f"The rule-out keeps a sensitivity of {kept:g} on the {positives} positive validation "
            f"slides; {sure} patients would be needed to promise it with {CONFIDENCE:.0%} "
            "confidence."
        )
    return _choose_threshold(slides, score, kept)


def _fit_rule(
    slides: ScoredSlides, score: Numbers, error_rate: float, warnings: list[str]
) -> ConformalRule | None:
    # Rows of one patient are not exchangeable with those of others.
    _, first = np.unique(slides.patient, return_index=True)
    rows = np.sort(first)
    label = slides.positive[rows].astype(np.int64)
    try:
        return fit_conformal(label, score[rows], error_rate=error_rate, label_conditional=True)
    except UsageError as error:
        warnings.append(
            f"There is no conformal rule, and the slide threshold alone decides. {error.what} "
            f"Of the {len(rows)} validation patients, one slide each, {int(label.sum())} are "
            "positive (class 1)."
        )
        return None


def _choose_novelty(
    slides: ScoredSlides, familiar: float, warnings: list[str]
) -> NoveltyCard | None:
    distances = slides.distances
    if distances is None or slides.tile_distances is None:
        return None  # which was said where the reference could not be fitted
    try:
        limit = novelty_threshold(distances, kept=familiar)
        tile_limit = novelty_threshold(np.concatenate(slides.tile_distances), kept=familiar)
    except UsageError as error:
        warnings.append(f"Nothing is called novel: {error.what}")
        return None
    return NoveltyCard(
        limit=limit,
        quantile=QUANTILE,
        kept=familiar,
        tile_limit=tile_limit,
        measured_on=_say_slides(slides),
    )


def _choose_tile_threshold(slides: ScoredSlides) -> OperatingPoint:
    """No tile is labelled: the threshold is what hardly any tile of a negative slide reaches."""
    pairs = list(zip(slides.tile_scores, slides.positive, strict=True))
    negative = np.sort(np.concatenate([scores for scores, positive in pairs if not positive]))
    rank = math.ceil(NEGATIVE_TILES * len(negative) - 1e-9)
    value = min(1.0, float(np.nextafter(negative[rank - 1], np.float32(2))))
    reached = [bool((scores >= value).any()) for scores, positive in pairs if positive]
    return OperatingPoint(
        value=value,
        chosen=f"no tile is labelled: {NEGATIVE_TILES:.0%} of the tiles of negative validation "
        "slides score below it",
        measured_on=f"{_say_slides(slides)}; sensitivity: positive slides with a tile that reaches "
        f"it, specificity: the {len(negative)} tiles of negative slides that do not",
        sensitivity=round(float(np.mean(reached)), 4),
        specificity=round(float((negative < value).mean()), 4),
    )


def _needed(kept: float) -> int:
    """The fewest rows of which one may be missed."""
    return math.ceil(1 / (1 - kept) - 1e-9)


def _say_slides(slides: ScoredSlides) -> str:
    return f"{len(slides)} slides of {slides.count_patients()} validation patients"
