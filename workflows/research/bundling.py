"""What `slidetriage calibrate` does: one training of a study becomes a bundle that can be run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from slidetriage.errors import OutputError, UsageError
from slidetriage.models import Bundle, Card, save_bundle
from slidetriage.models.fields import write_fields
from slidetriage.models.trust import NoveltyReference
from slidetriage.workflows.publishing import publish

from .bundle_card import Wording, describe_limits, draft_card
from .bundle_encoders import Origin, check_origin, open_origin
from .bundle_figures import measure_bundle
from .bundle_fitting import Fitted, Wishes, fit_bundle
from .bundle_scoring import fit_reference, score_slides
from .bundle_training import TrainedFold, find_fold, load_head
from .encoders import EncoderSource


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """Which training is to become a bundle, and how."""

    run: Path
    """The folder that `slidetriage train` wrote."""
    out: Path
    """Folder of the bundle; not there yet, or empty."""
    encoder: EncoderSource
    """The one that made the features."""
    training: str | None = None
    """Name of a folder in `trainings`; None for the first fold and seed."""
    positive: str | None = None
    """The class whose probability the scores are; None for the second."""
    wishes: Wishes = field(default_factory=Wishes)
    wording: Wording = field(default_factory=Wording)


@dataclass(frozen=True, slots=True)
class BundleReport:
    """The bundle that was made."""

    out: Path
    training: str
    card: Card
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """For programs: what was fitted, how it measured, and what is missing."""
        card = self.card
        parts = ("tile_threshold", "slide_threshold", "rule_out", "conformal", "novelty")
        return {
            "out": str(self.out),
            "name": card.name,
            "training": self.training,
            "positive": card.positive.name,
            "calibration": write_fields(card.calibration),
            **{name: write_fields(getattr(card, name)) for name in parts},
            "metrics": write_fields(card.metrics),
            "warnings": list(self.warnings),
        }


def calibrate_run(request: BundleRequest) -> BundleReport:
    """Make a bundle of one training: calibrated on its validation, measured on its test patients.

    Raises
    ------
    UsageError
        No bundle can be made of this study, the training is not there, the features are not of
        this encoder (E_FEATURES_MIXED), or nothing can be calibrated.
    ModelError
        The encoder or the weights cannot be loaded.
    OutputError
        The bundle is there already, or cannot be written.
    """
    target = request.out.absolute()
    _check_free(target)
    fold = find_fold(request.run, request.training, positive=request.positive)
    origin = open_origin(request.encoder)
    check_origin(origin, fold.study)
    draft = draft_card(fold, origin, request.wording, folder=request.run.absolute().name)
    reference, unfitted = _fit_reference(fold)
    bundle = Bundle(draft, origin.model.encoder, load_head(fold), "", reference)
    outcome = fold.outcome
    validation = score_slides(
        bundle, fold, outcome.validation, outcome.validation_predictions[:, fold.positive]
    )
    fitted = fit_bundle(validation, request.wishes)
    card = _calibrate_card(draft, fitted)
    test = score_slides(bundle, fold, outcome.test, outcome.predictions[:, fold.positive])
    metrics, unmeasured = measure_bundle(card, test)
    warnings = (*fold.warnings, *unfitted, *unmeasured)
    limits = describe_limits(fold, fitted, validation, warnings)
    card = replace(card, metrics=metrics, limits=limits)
    with _staged(target) as staged:
        card = _save(staged, card, bundle, origin)
    return BundleReport(target, fold.name, card, (*fitted.warnings, *warnings))


def _fit_reference(fold: TrainedFold) -> tuple[NoveltyReference | None, tuple[str, ...]]:
    try:
        return fit_reference(fold), ()
    except UsageError as error:
        return None, (f"Nothing is called novel: of the training tiles, {error.what}",)


def _calibrate_card(draft: Card, fitted: Fitted) -> Card:
    return replace(
        draft,
        calibration=fitted.calibration,
        tile_threshold=fitted.tile_threshold,
        slide_threshold=fitted.slide_threshold,
        rule_out=fitted.rule_out,
        conformal=fitted.conformal,
        novelty=fitted.novelty,
    )


def _save(folder: Path, card: Card, bundle: Bundle, origin: Origin) -> Card:
    return save_bundle(
        folder,
        card,
        backbone=bundle.encoder.backbone if origin.reference is None else None,
        head=bundle.head,
        novelty=None if card.novelty is None else bundle.novelty,
    )


def _check_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} is there already.", mend="Remove it, or choose another --out.")


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place once it is whole."""
    staged = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        yield staged
        publish(staged, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{target}: the bundle cannot be written ({error.strerror}).",
            mend="Choose a folder you may write to with --out.",
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
