"""The difference between two models in every site and subgroup that is large enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slidetriage.models.evaluation import SubgroupFigure, Subgroups, auc
from slidetriage.models.evaluation.comparison import Statistic
from slidetriage.models.evaluation.subgroups import UNKNOWN

from .compare_matching import MatchedModel
from .predictions import Numbers
from .report_groups import AGE_BANDS, REPEATS, group_columns
from .report_shares import Rows, Tested
from .report_values import GroupTable


def compare_groups(
    tested: Tested,
    base: MatchedModel,
    other: MatchedModel,
    first: Mapping[str, Statistic],
    second: Mapping[str, Statistic],
) -> tuple[GroupTable, ...]:
    """The main figure's difference in each group; of several classes, that of each class's AUC.

    Groups that are too small by the report's rule keep their counts and lose their figure.
    """
    truth, kind = tested.truth, tested.table.kind
    if kind == "classes" and len(tested.table.classes) > 2:
        tables: list[GroupTable] = []
        for number, name in enumerate(tested.table.classes):
            own = truth == number
            areas = [_area(own, model.table.score[:, number]) for model in (base, other)]
            tables += _tabulate(tested, own, f"AUC of {name}", areas[0], areas[1])
        return tuple(tables)
    name = next(iter(first))
    positive = truth > np.median(truth) if kind == "number" else truth == 1
    return _tabulate(tested, positive, name, first[name], second[name])


def _area(own: NDArray[np.bool_], score: Numbers) -> Statistic:
    return lambda rows: auc(own[rows], score[rows])


def _tabulate(
    tested: Tested,
    positive: NDArray[np.bool_],
    name: str,
    first: Callable[[Rows], float],
    second: Callable[[Rows], float],
) -> tuple[GroupTable, ...]:
    columns = group_columns(tested)
    if not columns:
        return ()
    repeats = min(REPEATS, tested.repeats)
    groups = Subgroups(tested.patient, positive, columns, repeats=repeats, seed=tested.seed)
    rows = groups.table(lambda drawn: second(drawn) - first(drawn))
    order = list(columns)
    ordered = sorted(rows, key=lambda row: (order.index(row.column), _place(row.group)))
    better = name != "mean absolute error"
    return (GroupTable(name, better, tuple(map(_keep_large, ordered))),)


def _keep_large(row: SubgroupFigure) -> SubgroupFigure:
    """Whether a group is worse than the rest says nothing of a difference between models."""
    if row.warning.startswith("too small"):
        return replace(row, figure=None)
    return replace(row, warning="")


def _place(group: str) -> tuple[int, str]:
    """Bands of age by age, the unknown last, the others as they come."""
    bands = [name for _, name in AGE_BANDS]
    if group in bands:
        return bands.index(group), ""
    return (len(bands) + 1, "") if group == UNKNOWN else (0, group)
