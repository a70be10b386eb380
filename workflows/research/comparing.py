"""Two or more models on the same patients: compare.json and compare.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import OutputError, UsageError
from slidetriage.models.evaluation import (
    Interval,
    class_balanced_accuracy,
    multiclass_auc,
    roc_curve,
)
from slidetriage.models.evaluation.comparison import (
    DeLong,
    Statistic,
    binary_statistics,
    delong_test,
    holm,
    mcnemar_test,
    number_statistics,
    paired_difference,
    survival_statistics,
)
from slidetriage.workflows.publishing import write_json, write_whole
from slidetriage.workflows.settings import RESEARCH_USE

from .compare_groups import compare_groups
from .compare_matching import Matched, MatchedModel, match_models
from .compare_values import (
    CallsTest,
    ComparisonFigures,
    FigureDifference,
    ModelFigure,
    ModelFigures,
    PairFigures,
)
from .compare_words import list_limits, say_difference
from .predictions import Predictions
from .report_figures import REPEATS
from .report_shares import Tested
from .report_values import Curve

SCHEMA_VERSION = 1
COMPARE_JSON, COMPARE_HTML = "compare.json", "compare.html"
LOWER_IS_BETTER = frozenset({"Brier score", "mean absolute error"})
LIKELIEST = "likeliest class"
ALPHA = 0.05


def compare(
    named: Mapping[str, Predictions],
    out: Path,
    *,
    title: str,
    seed: int = 0,
    repeats: int = REPEATS,
) -> ComparisonFigures:
    """Measure, and write `compare.json` and `compare.html` into the folder `out`.

    Raises
    ------
    UsageError
        The models cannot be compared (see `measure_comparison`); nothing is written then.
    OutputError
        The folder cannot be written to.
    """
    from .compare_page import render_comparison

    figures = measure_comparison(named, title=title, seed=seed, repeats=repeats)
    page = render_comparison(figures)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{out}: the folder cannot be made ({error.strerror}).", mend="Name another."
        ) from error
    write_json(out / COMPARE_JSON, figures.to_json())
    write_whole(out / COMPARE_HTML, page.encode("utf-8"))
    return figures


def measure_comparison(
    named: Mapping[str, Predictions], *, title: str, seed: int = 0, repeats: int = REPEATS
) -> ComparisonFigures:
    """Every model against the first, on the test rows that all of them have.

    Raises
    ------
    UsageError
        The models do not match (see `match_models`), fewer than two patients are tested by all, or
        all of these have one label (E_TABLE).
    """
    matched = match_models(named)
    tested = Tested.of(matched.baseline.table, repeats=repeats, seed=seed)
    _check_spread(tested)
    first, *others = (_list_statistics(tested, model) for model in matched.models)
    pairs = _adjust([
        _compare_pair(tested, matched, other, first, statistics)
        for other, statistics in zip(matched.models[1:], others, strict=True)
    ])  # fmt: skip
    table, truth = tested.table, tested.truth
    names = ("no event", "event") if table.kind == "survival" else table.classes
    counts = tuple((name, int((truth == number).sum())) for number, name in enumerate(names))
    patients = len(np.unique(tested.patient))
    return ComparisonFigures(
        schema_version=SCHEMA_VERSION,
        notice=RESEARCH_USE,
        title=title,
        kind=table.kind,
        classes=table.classes,
        unit=matched.unit,
        units=len(table),
        patients=patients,
        counts=counts,
        models=tuple(
            _describe_model(tested, model, statistics)
            for model, statistics in zip(matched.models, (first, *others), strict=True)
        ),
        pairs=pairs,
        said=tuple(pair.differences[0].said for pair in pairs),
        limits=list_limits(matched, patients, counts, pairs),
        seed=seed,
        repeats=repeats,
    )


def _check_spread(tested: Tested) -> None:
    if len(np.unique(tested.patient)) < 2:
        raise UsageError(
            "The models have one tested patient in common.",
            mend="Bring predictions of the same cohort.",
            code="E_TABLE",
        )
    survival = tested.table.kind == "survival"
    if len(np.unique(tested.truth)) < 2 and not (survival and tested.truth.all()):
        what = "no event" if survival else "one label"
        raise UsageError(
            f"All {len(tested.rows)} rows that the models have in common have {what}.",
            mend="Bring predictions of the same cohort, with rows of another label.",
            code="E_TABLE",
        )


def _list_statistics(tested: Tested, model: MatchedModel) -> dict[str, Statistic]:
    """The figures of one model over the common rows, the main one first."""
    table, truth, score = tested.table, tested.truth, model.table.score
    if table.kind == "number":
        return number_statistics(truth, score[:, 0])
    if table.time is not None:
        return survival_statistics(table.time, truth, model.risk)
    if len(table.classes) == 2:
        return binary_statistics(truth, score[:, 1], model.called)
    return {
        "mean AUC": lambda rows: multiclass_auc(truth[rows], score[rows]),
        "balanced accuracy": lambda rows: class_balanced_accuracy(truth[rows], score[rows]),
    }


def _describe_model(
    tested: Tested, model: MatchedModel, statistics: Mapping[str, Statistic]
) -> ModelFigures:
    found: dict[str, Interval | None] = {}
    positive = tested.truth == 1
    for name, statistic in statistics.items():
        kind, _, threshold = name.partition(" at ")
        if kind == "sensitivity":
            found[name] = tested.share(model.called[threshold], positive)
        elif kind == "specificity":
            found[name] = tested.share(~model.called[threshold], ~positive)
        else:
            found[name] = tested.interval(statistic)
    roc = None
    if len(tested.table.classes) == 2:
        curve = roc_curve(positive, model.table.score[:, 1])
        roc = Curve(tuple((1 - curve.specificity).tolist()), tuple(curve.sensitivity.tolist()))
    return ModelFigures(
        name=model.name,
        tested=model.tested,
        left_out=model.tested - len(tested.rows),
        repeated=model.repeated,
        folds=len(model.risk),
        seeds=model.seeds,
        figures=tuple(ModelFigure(name, value) for name, value in found.items()),
        roc=roc,
    )


def _compare_pair(
    tested: Tested,
    matched: Matched,
    other: MatchedModel,
    first: Mapping[str, Statistic],
    second: Mapping[str, Statistic],
) -> PairFigures:
    base, bootstrap = matched.baseline, tested.bootstrap()
    differences = []
    for name, statistic in first.items():
        try:
            found = paired_difference(bootstrap, statistic, second[name])
        except UsageError:  # a class that no common row has
            continue
        if np.isfinite(found.difference.value):
            differences.append(
                FigureDifference(
                    name=name,
                    higher_is_better=name not in LOWER_IS_BETTER,
                    baseline=found.first,
                    other=found.second,
                    difference=found.difference,
                    p=found.p,
                    p_adjusted=found.p,
                    told_apart=False,
                    said="",
                )
            )
    if not differences:
        raise UsageError(
            "No two common rows can be compared: there is no figure.",
            mend="Bring more patients, or a longer follow-up.",
            code="E_TABLE",
        )
    delong, calls = _test_rows(tested, base, other)
    return PairFigures(
        baseline=base.name,
        other=other.name,
        differences=tuple(differences),
        delong=delong,
        delong_adjusted=delong.p if delong is not None else float("nan"),
        calls=calls,
        groups=compare_groups(tested, base, other, first, second),
    )


def _test_rows(
    tested: Tested, base: MatchedModel, other: MatchedModel
) -> tuple[DeLong | None, tuple[CallsTest, ...]]:
    """The tests that take rows for independent, where each is of another patient."""
    patients, truth, delong = tested.patient, tested.truth, None
    if tested.table.kind != "classes" or len(np.unique(patients)) < len(patients):
        return None, ()
    right: dict[str, list[NDArray[np.bool_]]] = {}
    for model in (base, other):
        for name, called in model.called.items():
            right.setdefault(name, []).append(called == (truth == 1))
        if not model.called:
            right.setdefault(LIKELIEST, []).append(model.table.score.argmax(axis=1) == truth)
    if len(tested.table.classes) == 2 and min((truth == 1).sum(), (truth == 0).sum()) > 1:
        delong = delong_test(truth, base.table.score[:, 1], other.table.score[:, 1], patients)
    tests = []
    for name, (mine, yours) in right.items():
        found = mcnemar_test(mine, yours, patients)
        tests.append(CallsTest(name, found.only_first, found.only_second, found.p, found.p))
    return delong, tuple(tests)


def _adjust(pairs: Sequence[PairFigures]) -> tuple[PairFigures, ...]:
    """With Holm's p-values over the pairs, figure by figure, and what then can be told apart."""
    found: list[list[FigureDifference]] = [[] for _ in pairs]
    for name in dict.fromkeys(each.name for pair in pairs for each in pair.differences):
        own = [next((d for d in pair.differences if d.name == name), None) for pair in pairs]
        adjusted = holm([np.nan if each is None else each.p for each in own])
        for place, (each, p) in enumerate(zip(own, adjusted.tolist(), strict=True)):
            if each is not None:
                low, high = each.difference.low, each.difference.high
                apart = p < ALPHA and (low > 0 or high < 0)
                each = replace(each, p_adjusted=p, told_apart=apart)
                said = say_difference(each, pairs[place].baseline, pairs[place].other, len(pairs))
                found[place].append(replace(each, said=said))
    areas = holm([pair.delong_adjusted for pair in pairs]).tolist()
    calls = [list(pair.calls) for pair in pairs]
    for at in range(len(calls[0])):
        adjusted = holm([tests[at].p for tests in calls])
        for tests, p in zip(calls, adjusted.tolist(), strict=True):
            tests[at] = replace(tests[at], p_adjusted=p)
    return tuple(
        replace(pair, differences=tuple(own), delong_adjusted=area, calls=tuple(tests))
        for pair, own, area, tests in zip(pairs, found, areas, calls, strict=True)
    )
