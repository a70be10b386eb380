"""The one training of a study that a bundle is made of, found on disk and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError

from .cross_validation import list_trainings
from .study import Study
from .study_file import STUDY, read_study
from .table_reading import list_some
from .training_run import FOLDERS, make_rounds, make_study
from .trainings import RESULT, WEIGHTS, Outcome, Training, read_outcome

if TYPE_CHECKING:
    from slidetriage.models import SlideHead
    from slidetriage.models.heads import Head

_AGAIN = "Run the same `slidetriage train` again; what is trained and unchanged is kept."


@dataclass(frozen=True, slots=True, eq=False)
class TrainedFold:
    """A training of two classes that was finished, and the study it belongs to."""

    study: Study
    training: Training
    outcome: Outcome
    trainings: int
    """Of the whole study."""
    positive: int
    """Number of the class that scores are to be the probability of."""
    warnings: tuple[str, ...]
    """What is to be said of the splits."""

    @property
    def name(self) -> str:
        """The folder's, which is what the training is called on the command line."""
        return self.training.folder.name

    @property
    def classes(self) -> tuple[str, str]:
        """The negative and the positive class."""
        names = self.study.cohort.target.classes
        return names[1 - self.positive], names[self.positive]

    def patients(self, units: NDArray[np.int64]) -> tuple[str, ...]:
        """The patients of some slides, each once, sorted."""
        return tuple(sorted({self.study.cohort.patients[unit] for unit in units}))

    def is_positive(self, units: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some slides are of the positive class."""
        assert self.study.cohort.labels is not None  # of classes
        return np.asarray(self.study.cohort.labels[units] == self.positive)


def find_fold(run: Path, name: str | None, *, positive: str | None = None) -> TrainedFold:
    """Find a training in a folder that `slidetriage train` wrote.

    Parameters
    ----------
    name
        Of its folder in `trainings`; None for the first fold and seed.
    positive
        The class that scores are to be the probability of; None for the second.

    Raises
    ------
    UsageError
        No bundle can be made of such a study, there is no training of this name, or it was not
        finished with the table and features as they are now.
    """
    folder = run.absolute()
    request = read_study(folder / STUDY)
    study = make_study(request)
    _check_target(study)
    rounds, warnings = make_rounds(request, study)
    trainings = list_trainings(study, rounds, seeds=range(request.seeds), out=folder / FOLDERS)
    names = [training.folder.name for training in trainings]
    if not names or name not in (None, *names):
        raise UsageError(
            f"{run} has no training {name!r}.", mend=f"It has {', '.join(names) or 'none'}."
        )
    training = trainings[0 if name is None else names.index(name)]
    return TrainedFold(
        study,
        training,
        _find_outcome(training),
        len(trainings),
        _find_class(study, positive),
        tuple(warnings),
    )


def load_head(fold: TrainedFold) -> SlideHead:
    """The trained head, with one logit for the positive class."""
    import torch

    from slidetriage.models import SlideHead
    from slidetriage.models.heads import build_head
    from slidetriage.models.weights import fill, read_weights

    method = fold.study.method
    with torch.random.fork_rng(devices=[]):
        inner = build_head(method.head, fold.study.open().feature_size, 1, **method.arguments)
    head = SlideHead(inner, tile_classifier=False)
    weights = read_weights(fold.training.folder / WEIGHTS)
    fill(head, weights.tensors, where=f"{fold.name}/{WEIGHTS}")
    if fold.positive == 0:
        turn_round(inner, fold.classes)
    return head.eval().requires_grad_(False)


def turn_round(head: Head, classes: tuple[str, str]) -> None:
    """Make the logits of the second class those of the first, in place.

    Every head but DSMIL's is linear in its last layer, so that the logits of slide and tiles
    change their sign and nothing else. Raises `UsageError` for DSMIL; `classes` are named there,
    the positive one last.
    """
    import torch

    from slidetriage.models.heads import DualStreamHead

    if isinstance(head, DualStreamHead):
        raise UsageError(
            f"dsmil looks for the tile that speaks most for {classes[0]!r} and cannot be turned "
            "round.",
            mend=f"Train again with {classes[1]!r} last in --classes.",
        )
    with torch.no_grad():
        for parameter in head.get_submodule("classify").parameters():
            parameter.neg_()


def _check_target(study: Study) -> None:
    """Raise `UsageError` unless the study is of two classes that slides alone tell apart."""
    target = study.cohort.target
    two = "A bundle scores slides by the probability of one of two classes"
    if target.kind == "survival":
        raise UsageError(f"{two}; this study is of survival, and its bags are patients.")
    if target.kind == "number":
        raise UsageError(f"{two}; this study is of a number.")
    if len(target.classes) != 2:
        raise UsageError(
            f"{two}; this study has {len(target.classes)}: {list_some(target.classes)}.",
            mend="Train on two of them: --classes A,B --exclude other-label.",
        )
    if study.cohort.covariates:
        names = list_some(column.name for column in study.cohort.covariates)
        raise UsageError(
            f"This study was trained with covariates ({names}), which `slidetriage run` does not "
            "know of a slide.",
            mend="Train without --covariate.",
        )


def _find_class(study: Study, wanted: str | None) -> int:
    classes = study.cohort.target.classes
    if wanted is None:
        return 1
    if wanted not in classes:
        raise UsageError(
            f"There is no class {wanted!r}.", mend=f"Choose {' or '.join(classes)} as --positive."
        )
    return classes.index(wanted)


def _find_outcome(training: Training) -> Outcome:
    outcome = read_outcome(training)
    if outcome is not None:
        return outcome
    if (training.folder / RESULT).exists():
        raise UsageError(
            f"{training.folder.name} was trained on another table, on features that lay elsewhere, "
            "or with other options.",
            mend=_AGAIN,
        )
    raise UsageError(f"{training.folder.name} was not trained to its end.", mend=_AGAIN)
