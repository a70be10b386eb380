"""The card of a bundle made from a training: what it was made of, and what it cannot know."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from slidetriage.errors import UsageError
from slidetriage.models import (
    Card,
    ClassCard,
    DataSource,
    HeadCard,
    OperatingPoint,
    TrainingCard,
    WeightsCard,
)
from slidetriage.workflows.settings import RESEARCH_USE

from .bundle_encoders import Origin
from .bundle_fitting import Fitted
from .bundle_scoring import ScoredSlides
from .bundle_training import TrainedFold
from .table_reading import list_some

UNSTATED = "unstated"

GREY, RED = (160, 160, 160), (200, 0, 0)

_NAME = r"[a-z0-9][a-z0-9-]*"
_NOT_YET = OperatingPoint(0.5, "not chosen yet", "nothing", 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Wording:
    """What a card says that no training knows; None for what follows from the training."""

    name: str | None = None
    """None for the name of the run's folder."""
    version: str = "1.0.0"
    summary: str | None = None
    stain: str = UNSTATED
    tissue: str = UNSTATED
    licence: str = UNSTATED

    def __post_init__(self) -> None:
        if self.name is not None and not re.fullmatch(_NAME, self.name):
            raise UsageError(
                f"{self.name!r} cannot name a bundle.",
                mend="Use lower-case letters, digits and hyphens, such as my-model.",
            )


def draft_card(fold: TrainedFold, origin: Origin, wording: Wording, *, folder: str) -> Card:
    """The card before anything was fitted: its thresholds mean nothing yet.

    `folder` is what the bundle is called after where `wording` does not say.
    """
    tiles, method = origin.model.card, fold.study.method
    negative, positive = fold.classes
    summary = wording.summary or (
        f"Tells {positive} from {negative} by {method.head} over tiles of "
        f"{tiles.tile_px * tiles.mpp:g} um."
    )
    return Card(
        schema_version=2,
        name=wording.name or make_name(folder),
        version=wording.version,
        summary=summary,
        intended_use=RESEARCH_USE,
        licence=wording.licence,
        stain=wording.stain,
        tissue=wording.tissue,
        classes=(
            ClassCard(negative, False, "Other", GREY),
            ClassCard(positive, True, positive, RED),
        ),
        mpp=tiles.mpp,
        mpp_range=tiles.mpp_range,
        tile_px=tiles.tile_px,
        encoder=origin.model.encoder.card,
        encoder_from=origin.reference,
        stain_normaliser=origin.model.stain,
        head=HeadCard(method.head, method.arguments, tile_classifier=False),
        calibration=None,
        tile_threshold=_NOT_YET,
        slide_threshold=_NOT_YET,
        rule_out=None,
        conformal=None,
        novelty=None,
        training=_describe_training(fold, origin),
        metrics=(),
        limits=(),
        weights=WeightsCard("weights.safetensors", "0" * 64),
    )


def make_name(folder: str) -> str:
    """A name that a card may have.

    >>> make_name("Grade 2_vs_3/")
    'grade-2-vs-3'
    """
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-") or "bundle"


def describe_limits(
    fold: TrainedFold, fitted: Fitted, validation: ScoredSlides, warnings: tuple[str, ...]
) -> tuple[str, ...]:
    """What the user of a bundle must know: whole sentences, each true of this training."""
    cohort, train = fold.study.cohort, fold.training.split.train
    negative, positive = fold.classes
    sites = "sites unstated"
    if cohort.sites is not None:
        seen = sorted({cohort.sites[unit] for unit in train})
        sites = f"{len(seen)} sites ({list_some(seen)})"
    said = [
        f"Learned from {len(train)} slides of {len(fold.patients(train))} patients, {sites}, of "
        f"the table {cohort.source.name}; slides of other laboratories, scanners and stains may "
        "score differently.",
        f"Calibrated on {len(validation)} slides of {validation.count_patients()} patients that "
        "the weights were not fitted to, but who chose the epoch at which training stopped: "
        "figures on them flatter, and what is promised from them is kept a little less well.",
        f"Of these slides {validation.positive.mean():.0%} are {positive}; where the share is "
        "another, a score is not the probability that it says.",
        f"No tile was labelled: a tile's score is what the head makes of it, and no evidence that "
        f"it shows {positive} rather than {negative}.",
    ]
    if fold.trainings > 1:
        said.append(
            f"One of {fold.trainings} trainings of a cross-validation ({fold.name}); the metrics "
            "are of its own test patients alone."
        )
    if cohort.excluded:
        said.append(f"{len(cohort.excluded)} rows of the table were left out.")
    return (*said, *fitted.warnings, *warnings)


def _describe_training(fold: TrainedFold, origin: Origin) -> TrainingCard:
    import torch

    study, split = fold.study, fold.training.split
    cohort, method, source = study.cohort, study.method, study.open()
    tiles = sum(source.tiles(cohort.slides[unit]) or 0 for unit in split.train)
    return TrainingCard(
        data=(DataSource(cohort.source.stem, cohort.source.name, UNSTATED, ()),),
        started_from=f"random weights of the head on features of {origin.model.identity}",
        patients=len(fold.patients(split.train)),
        tiles=tiles,
        seed=fold.training.seed,
        split_seed=0,
        validation_patients=fold.patients(split.validation),
        test_patients=fold.patients(split.test),
        tile_stage="None: the encoder was used as it is.",
        bag_stage=f"{method.head} ({_list_options(method.arguments)}) on frozen features, each "
        f"standardised by the training slides; {_list_options(asdict(method.recipe))}; classes "
        f"{'weighed alike' if method.balanced else 'weighed as they come'}. Epoch "
        f"{fold.outcome.best} of {len(fold.outcome.history)} had the least loss on the validation "
        "patients and was kept.",
        machine=f"calibrated on {platform.machine()}, torch {torch.__version__}",
    )


def _list_options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "as published"
