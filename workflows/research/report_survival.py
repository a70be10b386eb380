"""The figures of a report on the time to an event: concordance, groups of risk, and Cox models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import (
    CoxTerm,
    LogRank,
    fit_cox,
    harrell_concordance,
    kaplan_meier,
    log_rank,
    risk_boundaries,
    risk_groups,
)

from .cohort import Column
from .predictions import Names, Numbers
from .report_shares import FoldRows, Rows, Tested, value_or_nan
from .report_values import (
    CoxComparison,
    Curve,
    FoldFigure,
    RiskGroup,
    SurvivalFigures,
)

GROUPS = ("lower risk", "higher risk")


def measure_survival(tested: Tested) -> SurvivalFigures:
    """All figures; risks of different folds are compared only within their fold."""
    times, events = tested_times(tested)
    member, optimistic = _part_by_risk(tested)
    ticks = _ticks(times)
    return SurvivalFigures(
        patients=len(np.unique(tested.patient)),
        events=int(events.sum()),
        concordance=tested.interval(lambda rows: mean_concordance(tested, rows)),
        folds=tuple(
            FoldFigure(f.fold, value_or_nan(lambda rows: mean_concordance(tested, rows), f.place))
            for f in tested.folds
        ),
        groups=tuple(
            _follow_group(name, times[member == name], events[member == name], ticks)
            for name in GROUPS
            if (member == name).any()
        ),
        optimistic=optimistic,
        ticks=tuple(ticks.tolist()),
        log_rank=_compare_groups(times, events, member),
        comparisons=tuple(
            found
            for column in tested.table.subgroups
            if column.kind == "number" and (found := _compare_with_cox(tested, column)) is not None
        ),
    )


def tested_times(tested: Tested) -> tuple[Numbers, NDArray[np.bool_]]:
    """N times and events."""
    time, event = tested.table.time, tested.table.event
    assert time is not None  # of survival
    assert event is not None
    return time[tested.rows], event[tested.rows]


def mean_concordance(tested: Tested, rows: Rows) -> float:
    """Harrell's within each fold, mean over the folds in which pairs can be compared."""
    return _mean_over_folds(tested, tested.score[:, 0], rows)


def _mean_over_folds(tested: Tested, risk: Numbers, rows: Rows) -> float:
    times, events = tested_times(tested)
    fold = tested.table.fold[tested.rows][rows]
    found = []
    for name in tested.table.folds:
        here = rows[fold == name]
        if len(here) and events[here].any():
            try:
                found.append(harrell_concordance(times[here], events[here], risk[here]).value)
            except UsageError:
                continue
    return float(np.mean(found)) if found else float("nan")


def _part_by_risk(tested: Tested) -> tuple[Names, bool]:
    """The group of each tested row by the median risk of the fold's validation part."""
    risk = tested.table.score[:, 0]
    member = np.zeros(len(tested.rows), np.int64)
    optimistic = False
    for fold in tested.folds:
        rows, from_test = _reference(tested, fold)
        optimistic |= from_test
        if len(np.unique(risk[rows])) > 1:
            member[fold.place] = risk_groups(risk[fold.test], risk_boundaries(risk[rows]))
    return np.array(GROUPS)[member], optimistic


def _reference(tested: Tested, fold: FoldRows) -> tuple[Rows, bool]:
    """What risks of a fold are measured against: validation rows, or else its own test rows."""
    enough = len(np.unique(tested.table.score[fold.validation, 0])) > 1
    return (fold.validation, False) if enough else (fold.test, True)


def _follow_group(
    name: str, times: Numbers, events: NDArray[np.bool_], ticks: Numbers
) -> RiskGroup:
    curve = kaplan_meier(times, events)
    median = curve.median
    return RiskGroup(
        name=name,
        patients=len(times),
        events=int(events.sum()),
        median=median if np.isfinite(median) else float("nan"),
        curve=Curve(
            *(tuple(v.tolist()) for v in (curve.time, curve.survival, curve.low, curve.high))
        ),
        censored=tuple(curve.censored.tolist()),
        at_risk=tuple(int((times >= tick).sum()) for tick in ticks),
    )


def _ticks(times: Numbers) -> Numbers:
    """About five round times from 0 to the last."""
    last = float(times.max())
    if last <= 0:
        return np.zeros(1)
    step = 10 ** np.floor(np.log10(last / 5))
    step *= next(s for s in (1, 2, 3, 5, 6, 10) if last / (s * step) <= 6)
    return np.arange(0, last, step)


def _compare_groups(times: Numbers, events: NDArray[np.bool_], member: Names) -> LogRank | None:
    try:
        return log_rank(times, events, member)
    except UsageError:  # one group, or no events
        return None


def _compare_with_cox(tested: Tested, column: Column) -> CoxComparison | None:
    """A Cox model on one column, fitted for each fold on patients who are not tested in it."""
    table, values = tested.table, np.asarray(column.values, np.float64)
    assert table.time is not None
    assert table.event is not None
    risk = np.zeros(len(tested.rows))
    for fold in tested.folds:
        others = np.flatnonzero(~np.isin(table.patient, table.patient[fold.test]))
        _, first = np.unique(table.patient[others], return_index=True)
        rows = others[first]
        rows = rows[np.isfinite(values[rows])]
        try:
            fit = fit_cox(table.time[rows], table.event[rows], values[rows])
        except UsageError:  # nobody left to fit it on, or the column says nothing
            return None
        known = np.where(np.isfinite(values), values, values[rows].mean())
        risk[fold.place] = fit.risk(known[fold.test])
    everyone = np.arange(len(tested.rows))
    alone, beside = _hazard_of_risk(tested, values[tested.rows])
    return CoxComparison(
        column=column.name,
        concordance=_mean_over_folds(tested, risk, everyone),
        folds=tuple(
            FoldFigure(f.fold, _mean_over_folds(tested, risk, f.place)) for f in tested.folds
        ),
        risk_alone=alone,
        risk_beside=beside,
    )


def _hazard_of_risk(tested: Tested, values: Numbers) -> tuple[CoxTerm | None, CoxTerm | None]:
    """The risk's hazard ratio alone, and with the column, on each patient's first tested row."""
    times, events = tested_times(tested)
    risk = _standardise(tested)
    _, first = np.unique(tested.patient, return_index=True)
    rows = first[np.isfinite(values[first])]
    terms: list[CoxTerm | None] = []
    for design in (risk[:, None], np.stack([risk, values], axis=1)):
        names = ("risk", "column")[: design.shape[1]]
        try:
            fit = fit_cox(times[rows], events[rows], design[rows], names=names)
        except UsageError:
            terms.append(None)
        else:
            terms.append(fit.terms[0])
    return terms[0], terms[1]


def _standardise(tested: Tested) -> Numbers:
    """Risks in standard deviations of their fold, whose models differ in scale."""
    risk = tested.table.score[:, 0]
    scaled = np.zeros(len(tested.rows))
    for fold in tested.folds:
        rows, _ = _reference(tested, fold)
        spread = float(risk[rows].std())
        scaled[fold.place] = (risk[fold.test] - risk[rows].mean()) / (spread or 1.0)
    return scaled
