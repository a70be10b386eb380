"""The plots of a comparison, drawn as those of a report are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from .compare_values import ComparisonFigures, PairFigures
from .report_plots import Plot, make_plot, shorten

_INK, _FAINT = "#111111", "#777777"
_STYLES = (
    ("-", _INK), ("--", _INK), ("-.", _INK), (":", _INK), ("-", "#999999"), ("--", "#999999"),
)  # fmt: skip
_MOST_ROWS = 24
"""Rows that a forest plot shows."""


@dataclass(frozen=True, slots=True)
class _Row:
    words: str
    value: float
    low: float
    high: float
    told_apart: bool


def draw_comparison(figures: ComparisonFigures) -> dict[str, Plot]:
    """The plots of what the comparison holds, by name."""
    plots = []
    if all(model.roc is not None for model in figures.models):
        plots.append(_draw_roc(figures))
    for name, words, rows in _list_forests(figures):
        caption = (
            f"{words or 'Each figure'} minus that of {shorten(figures.models[0].name)}, 95 % "
            "intervals. Filled: told apart."
        )
        plots.append(_draw_forest(name, caption, words, rows))
    for place, pair in enumerate(figures.pairs):
        plots += _draw_groups(place, pair)
    return {plot.name: plot for plot in plots}


def _draw_roc(figures: ComparisonFigures) -> Plot:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
        for place, model in enumerate(figures.models):
            assert model.roc is not None  # asked for by the caller
            line, colour = _STYLES[place % len(_STYLES)]
            area = next(each.value for each in model.figures if each.name == "AUC")
            label = f"{shorten(model.name)}, {area.value:.3f}" if area else shorten(model.name)
            axes.plot(
                model.roc.x, model.roc.y, linestyle=line, color=colour, linewidth=1.3, label=label
            )
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower right")

    caption = f"ROC curves and AUC on the same {figures.unit}s; the thin dotted line is chance."
    return make_plot("roc", caption, draw)


def _list_forests(figures: ComparisonFigures) -> list[tuple[str, str, list[_Row]]]:
    """Name, figure and rows of each plot: figures from 0 to 1 share one, other numbers do not."""
    together: dict[str, list[_Row]] = {}
    for pair in figures.pairs:
        for each in pair.differences:
            own = figures.kind == "number"
            better = "" if each.higher_is_better else " (lower is better)"
            label = f"{shorten(pair.other, 22)}: {each.name}{better}"
            if len(figures.pairs) == 1:
                label = f"{each.name}{better}"
            found = each.difference
            row = _Row(label, found.value, found.low, found.high, each.told_apart)
            together.setdefault(each.name if own else "", []).append(row)
    return [(f"forest {name or 'all'}", name, rows[:_MOST_ROWS]) for name, rows in together.items()]


def _draw_groups(place: int, pair: PairFigures) -> list[Plot]:
    """One plot for each figure that is compared by group, of the largest groups."""
    plots = []
    for table in pair.groups:
        kept = [row for row in table.rows if row.figure is not None]
        largest = sorted(kept, key=lambda row: -row.patients)[:_MOST_ROWS]
        rows = []
        for row in kept:
            if row in largest and row.figure is not None:
                low, high = row.figure.low, row.figure.high
                label = f"{shorten(row.column)}: {shorten(row.group)} ({row.patients})"
                rows.append(_Row(label, row.figure.value, low, high, low > 0 or high < 0))
        if rows:
            caption = (
                f"{shorten(pair.other)}'s {table.figure} minus {shorten(pair.baseline)}'s in "
                "groups that are large enough (patients), 95 % intervals. Filled: the interval "
                "leaves 0 out."
            )
            plots.append(
                _draw_forest(f"groups {place} {table.figure}", caption, table.figure, rows)
            )
    return plots


def _draw_forest(name: str, caption: str, figure: str, rows: Sequence[_Row]) -> Plot:
    def draw(axes: Axes) -> None:
        axes.axvline(0, color=_FAINT, linewidth=0.8, linestyle=":")
        for place, row in enumerate(rows):
            if math.isfinite(row.low) and math.isfinite(row.high):
                axes.plot([row.low, row.high], [place, place], color=_INK, linewidth=1)
            axes.plot(
                [row.value], [place], "s", color=_INK, markersize=4.5,
                markerfacecolor=_INK if row.told_apart else "white",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)))
        axes.set_yticklabels([row.words for row in rows])
        axes.set(
            xlabel=f"difference in {shorten(figure)}" if figure else "difference",
            ylim=(len(rows) - 0.4, -0.6),
        )

    return make_plot(name, caption, draw, size=(6.2, max(1.6, 0.9 + 0.22 * len(rows))))
