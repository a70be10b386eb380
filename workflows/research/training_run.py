"""What `slidetriage train` does: a table becomes a study, its folds are trained, all is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import Split, site_folds
from slidetriage.models.heads import head_arguments
from slidetriage.models.learning import Recipe
from slidetriage.workflows.publishing import claim_output
from slidetriage.workflows.resources import Resources

from .cohort import Target
from .cross_validation import (
    draw_rounds,
    list_trainings,
    run_trainings,
    split_round,
    unit_patients,
    unit_strata,
)
from .given_splits import GivenSplit, Shared, read_splits, split_by_columns
from .matching import match_features
from .prediction_files import write_predictions
from .predictions import from_outcomes
from .study import Method, Study
from .study_file import STUDY, make_absolute, write_study
from .tables import ColumnNames, Excusable, read_cohort
from .training_options import TrainingRequest
from .trainings import Outcome

FOLDERS = "trainings"
PREDICTIONS = "predictions.csv"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReport:
    """What came of a request."""

    out: Path
    study: Study
    rounds: tuple[tuple[str, Split], ...]
    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...] = field(default=())


def run_request(
    request: TrainingRequest,
    out: Path,
    resources: Resources,
    *,
    follow: Callable[[int, Outcome], None] | None = None,
) -> TrainingReport:
    """Train every fold and seed; what was trained before in `out` is not trained again.

    Parameters
    ----------
    request
        What to train.
    out
        Folder for weights, metrics and predictions; owned by this run while it lasts.
    resources
        Where; on a cluster, `out` and the features must be reached from every worker.
    follow
        Is told how many trainings there are, and of each as it is done.

    Raises
    ------
    UsageError
        The table, the features or the options make no sense; nothing was trained.
    """
    request = make_absolute(request)
    study = make_study(request)
    rounds, warnings = make_rounds(request, study)
    folder = out.absolute()
    with claim_output(folder):
        write_study(folder / STUDY, request)
        trainings = list_trainings(study, rounds, seeds=range(request.seeds), out=folder / FOLDERS)
        outcomes = run_trainings(
            trainings,
            resources,
            follow=None if follow is None else lambda done: follow(len(trainings), done),
        )
        write_predictions(folder / PREDICTIONS, from_outcomes(study, outcomes))
    return TrainingReport(folder, study, tuple(rounds), tuple(outcomes), tuple(warnings))


def make_study(request: TrainingRequest) -> Study:
    """Read the table, and find the features of its slides."""
    unknown = sorted(set(request.exclude) - set(get_args(Excusable)))
    if unknown:
        raise UsageError(
            f"--exclude knows no {unknown[0]!r}.",
            mend=f"It knows {', '.join(get_args(Excusable))}.",
        )
    excuse: tuple[Excusable, ...] = request.exclude  # type: ignore[assignment]  # just checked
    names = ColumnNames(
        **{name: value for name, value in request.columns.items() if value is not None},
        covariates=request.covariates,
        subgroups=request.subgroups,
    )
    cohort = read_cohort(request.table, names, _target(request), excuse=excuse)
    method = Method(
        head=request.head,
        arguments=parse_arguments(request.head, request.arguments),
        recipe=_recipe(request),
    )
    where = None if request.features is None else request.features.absolute()
    study = Study(cohort, where, request.encoder_name, method)
    return Study(
        match_features(cohort, study.open(), excuse=excuse), where, request.encoder_name, method
    )


def make_rounds(
    request: TrainingRequest, study: Study
) -> tuple[list[tuple[str, Split]], list[str]]:
    """The splits to train, and what is to be said of them."""
    given = split_by_columns(study.cohort)
    if request.splits is not None:
        if request.shared_patients not in get_args(Shared):
            raise UsageError(
                f"--shared-patients is {request.shared_patients!r}.",
                mend=f"Choose {', '.join(get_args(Shared))}.",
            )
        shared: Shared = request.shared_patients  # type: ignore[assignment]  # just checked
        given = read_splits(request.splits, study.cohort, shared=shared)
    if given:
        if study.by_patient:
            raise UsageError(
                "Given splits are of slides, and survival is of patients.",
                mend="Leave the splits out; folds are drawn by patient.",
            )
        return [_as_round(study, each) for each in given], _warn_of_shared(given, request)
    if not request.keep_sites:
        return draw_rounds(study, folds=request.folds, seed=0), []
    if study.cohort.sites is None:
        raise UsageError("--keep-sites needs to know the sites.", mend="Name --site-column.")
    strata = unit_strata(study)
    if strata is None:
        raise UsageError("--keep-sites needs classes or events to spread over the folds.")
    sites = np.array([study.cohort.sites[rows[0]] for rows in study.units()])
    kept = site_folds(sites, strata, unit_patients(study), folds=request.folds, seed=0)
    rounds = [
        (f"fold {number}", split_round(study, np.flatnonzero(kept.fold == number), seed=0))
        for number in range(request.folds)
    ]
    return rounds, list(kept.warnings)


def parse_arguments(head: str, arguments: tuple[str, ...]) -> dict[str, object]:
    """`name=value` of a head's arguments; values are read as JSON where they can be."""
    known, found = head_arguments(head), dict[str, object]()
    for text in arguments:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"{text!r} is no argument of the head {head}.",
                mend=f"Write name=value; it takes {', '.join(known)}.",
            )
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _as_round(study: Study, given: GivenSplit) -> tuple[str, Split]:
    """A given split, with validation drawn where it has none."""
    split = Split(given.train, given.val, given.test)
    if not len(given.val):
        split = split_round(study, given.test, seed=0)
    return f"fold {given.name}", split


def _warn_of_shared(given: Sequence[GivenSplit], request: TrainingRequest) -> list[str]:
    patients = {patient for each in given for patient in each.shared_patients}
    if not patients:
        return []
    what = {
        "keep": "were kept, so that figures flatter",
        "drop": "were left out of what was learned from and validated on",
    }[request.shared_patients]
    return [f"{len(patients)} patients stood in two parts of a given fold; they {what}."]


def _target(request: TrainingRequest) -> Target:
    if request.columns.get("time"):
        return Target("survival")
    return Target("number" if request.regress else "classes", request.classes)


def _recipe(request: TrainingRequest) -> Recipe:
    recipe = Recipe(epochs=request.epochs, rate=request.rate)
    if request.columns.get("time"):
        # The risk sets are within a batch, so a batch is as many patients as memory bears.
        recipe = replace(recipe, batch=256, most_tiles=1024)
    return replace(recipe, **parse_recipe(request.recipe))


def parse_recipe(parts: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` of a recipe, but for epochs and rate, which have options of their own."""
    known = {each.name: each.default for each in fields(Recipe)}
    for taken in ("epochs", "rate"):
        del known[taken]
    found = dict[str, Any]()
    for text in parts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"{text!r} is no part of a recipe.",
                mend=f"Write name=value; it takes {', '.join(known)}.",
            )
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
        wanted, given = known[name], found[name]
        fits = type(given) is type(wanted) or (type(wanted) is float and type(given) is int)
        if not fits and not (name == "most_tiles" and given is None):
            raise UsageError(
                f"{text!r} is no value of {name}.", mend=f"It is {wanted!r} where nothing is said."
            )
    return found
