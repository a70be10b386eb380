"""The plots of a validation report: small, labelled, and readable in black and white."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from .report_values import (
    BinaryFigures,
    Curve,
    GroupTable,
    NumberFigures,
    ReportFigures,
    SurvivalFigures,
)

_FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same
_INK, _FAINT, _BAND = "#111111", "#777777", "#cfcfcf"
_SIZE = (4.4, 3.6)
_MOST_GROUPS = 24
"""Groups that a forest plot shows; the largest ones."""

Draw = Callable[[Axes], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture and what it shows, in words."""

    name: str
    caption: str
    svg: bytes

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode('ascii')}"


def draw_plots(figures: ReportFigures) -> dict[str, Plot]:
    """The plots of what the report holds, by name."""
    plots: list[Plot] = []
    if figures.binary is not None:
        plots += _draw_binary(figures.binary)
    if figures.number is not None:
        plots.append(_draw_number(figures.number))
    if figures.survival is not None and figures.survival.groups:
        plots.append(_draw_survival(figures.survival))
    shown = {"AUC", "concordance", "mean absolute error"}
    for table in figures.groups:
        if table.figure in shown or table.figure.startswith("AUC of "):
            plots += _draw_forest(table, figures)
    return {plot.name: plot for plot in plots}


def _draw_binary(found: BinaryFigures) -> list[Plot]:
    def roc(axes: Axes) -> None:
        _draw_band(axes, found.roc)
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
        _mark_points(axes, found)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower right")

    def precision_recall(axes: Axes) -> None:
        _draw_band(axes, found.precision_recall)
        axes.axhline(found.prevalence, color=_FAINT, linewidth=0.8, linestyle=":")
        axes.set(
            xlabel="sensitivity (recall)", ylabel="positive predictive value (precision)",
            xlim=(0, 1), ylim=(0, 1.02),
        )  # fmt: skip

    return [
        make_plot("roc", "ROC curve with 95 % band; dotted: chance.", roc),
        make_plot(
            "precision-recall",
            "Precision-recall curve with 95 % band; dotted: share of positives.",
            precision_recall,
        ),
        make_plot(
            "reliability",
            "Share of positives against mean score, ten bins of equal size, 95 % Wilson; "
            "the dotted line is perfect.",
            lambda axes: _draw_reliability(axes, found),
        ),
        make_plot(
            "decision",
            "Decision curve: net benefit of acting on the score, of always and of never acting.",
            lambda axes: _draw_decision(axes, found),
        ),
        make_plot(
            "scores",
            f"Scores (probability of {found.positive}) of slides of each label, as given.",
            lambda axes: _draw_scores(axes, found),
        ),
    ]


def _mark_points(axes: Axes, found: BinaryFigures) -> None:
    for point, marker in zip(found.points, "os", strict=False):
        if point.sensitivity is None or point.specificity is None:
            continue
        axes.plot(
            [1 - point.specificity.value], [point.sensitivity.value], marker, color=_INK,
            markerfacecolor="white", markersize=6, linestyle="none",
            label=f"threshold for {point.asked:.0%}",
        )  # fmt: skip


def _draw_reliability(axes: Axes, found: BinaryFigures) -> None:
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=":")
    styles = {"as given": ("o", "white", "--"), found.chosen: ("s", _INK, "-")}
    for measured in found.calibrations:
        if measured.name not in styles:
            continue
        marker, fill, line = styles[measured.name]
        curve = measured.reliability
        low = [max(0.0, y - a) for y, a in zip(curve.y, curve.low, strict=True)]
        high = [max(0.0, b - y) for y, b in zip(curve.y, curve.high, strict=True)]
        axes.errorbar(
            curve.x, curve.y, yerr=(low, high), marker=marker, color=_INK, markerfacecolor=fill,
            markersize=4.5, linewidth=0.9, linestyle=line, elinewidth=0.6, label=measured.name,
        )  # fmt: skip
    axes.set(xlabel="mean score", ylabel="share of positives", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left")


def _draw_decision(axes: Axes, found: BinaryFigures) -> None:
    curve = found.decision
    axes.plot(curve.x, curve.y, color=_INK, linewidth=1.6, label="by the score")
    axes.plot(curve.x, found.treat_all, color=_INK, linewidth=0.9, linestyle="--", label="always")
    axes.axhline(0, color=_FAINT, linewidth=0.9, linestyle=":", label="never")
    top = max(max(curve.y), found.prevalence)
    axes.set(
        xlabel="threshold probability", ylabel="net benefit per slide",
        xlim=(0, 1), ylim=(-0.25 * top, 1.1 * top),
    )  # fmt: skip
    axes.legend(loc="upper right")


def _draw_scores(axes: Axes, found: BinaryFigures) -> None:
    styles: list[dict[str, Any]] = [
        {"facecolor": "#d9d9d9", "edgecolor": _INK, "linewidth": 0.6},
        {"facecolor": "none", "edgecolor": _INK, "linewidth": 0.9, "hatch": "////"},
    ]
    for histogram, style in zip(found.histograms, styles, strict=True):
        total, bins = max(1, sum(histogram.counts)), len(histogram.counts)
        axes.bar(
            [(at + 0.5) / bins for at in range(bins)],
            [count / total for count in histogram.counts],
            width=1 / bins, label=f"{shorten(histogram.name)} (n = {total})", **style,
        )  # fmt: skip
    axes.set(xlabel="score", ylabel="share of its label's slides", xlim=(0, 1))
    axes.legend(loc="best")


def _draw_number(found: NumberFigures) -> Plot:
    def draw(axes: Axes) -> None:
        ends = [min(*found.true, *found.predicted), max(*found.true, *found.predicted)]
        axes.plot(ends, ends, color=_FAINT, linewidth=0.8, linestyle=":")
        # Thousands of marks are one picture inside the drawing, or the page would be large.
        axes.plot(
            found.true, found.predicted, "o", color=_INK, markersize=3, alpha=0.35,
            markeredgewidth=0, rasterized=len(found.true) > 500,
        )  # fmt: skip
        axes.set(xlabel="true value", ylabel="predicted value")

    return make_plot("number", "Predicted against true value; the dotted line is perfect.", draw)


def _draw_survival(found: SurvivalFigures) -> Plot:
    def draw(axes: Axes) -> None:
        last = found.ticks[-1]
        for group, line, shade in zip(
            found.groups, ("-", "--"), ("#b8b8b8", "#dddddd"), strict=False
        ):
            curve = group.curve
            end = max([*curve.x, *group.censored])
            last = max(last, end)
            x, y = [0.0, *curve.x, end], [1.0, *curve.y]
            low, high = [1.0, *curve.low], [1.0, *curve.high]
            axes.fill_between(
                x, [*low, low[-1]], [*high, high[-1]], step="post", color=shade, linewidth=0
            )
            axes.step(
                x, [*y, y[-1]], where="post", color=_INK, linewidth=1.3, linestyle=line,
                label=f"{group.name} (n = {group.patients})",
            )  # fmt: skip
            at = [y[sum(t <= c for t in curve.x)] for c in group.censored]
            axes.plot(group.censored, at, "|", color=_INK, markersize=4, markeredgewidth=0.5)
        axes.set(xlabel="time", ylabel="share without event", xlim=(0, last or 1.0), ylim=(0, 1.02))
        axes.set_xticks(found.ticks)
        axes.legend(loc="lower left")

    caption = "Kaplan-Meier curves with 95 % bands by group of risk; ticks: censored."
    return make_plot("survival", caption, draw, size=(6.2, 3.8))


def _draw_forest(table: GroupTable, figures: ReportFigures) -> list[Plot]:
    """Every group with a value, the largest `_MOST_GROUPS` of them."""
    rows = [row for row in table.rows if row.figure is not None]
    largest = sorted(rows, key=lambda row: -row.patients)[:_MOST_GROUPS]
    rows = [row for row in rows if row in largest]
    if not rows:
        return []
    whole = _value_of_all(table.figure, figures)

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            assert row.figure is not None  # others were left out
            small = row.warning.startswith("too small")
            low, high = row.figure.low, row.figure.high
            if math.isfinite(low) and math.isfinite(high):
                axes.plot([low, high], [place, place], color=_FAINT if small else _INK, linewidth=1)
            axes.plot(
                [row.figure.value], [place], "o" if small else "s", color=_INK, markersize=4.5,
                markerfacecolor="white" if small else _INK,
            )  # fmt: skip
        if math.isfinite(whole):
            axes.axvline(whole, color=_FAINT, linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(rows)))
        axes.set_yticklabels(
            [f"{shorten(r.column)}: {shorten(r.group)} ({r.patients})" for r in rows]
        )
        axes.set(xlabel=shorten(table.figure), ylim=(len(rows) - 0.4, -0.6))

    caption = (
        f"{table.figure} in each group (patients), 95 % intervals; dotted: all together. "
        "Hollow: too small to say."
    )
    left_out = sum(row.figure is not None for row in table.rows) - len(rows)
    if left_out:
        caption += f" The {left_out} smallest groups stand in the table only."
    height = 0.9 + 0.22 * len(rows)
    return [make_plot(f"forest {table.figure}", caption, draw, size=(6.2, max(2.0, height)))]


def _value_of_all(name: str, figures: ReportFigures) -> float:
    if figures.binary is not None:
        return figures.binary.auc.value
    if figures.number is not None and figures.number.mean_absolute_error is not None:
        return figures.number.mean_absolute_error.value
    if figures.survival is not None and figures.survival.concordance is not None:
        return figures.survival.concordance.value
    for each in figures.multiclass.classes if figures.multiclass is not None else ():
        if name == f"AUC of {each.name}" and each.auc is not None:
            return each.auc.value
    return math.nan


def _draw_band(axes: Axes, curve: Curve) -> None:
    if curve.low:
        axes.fill_between(curve.x, curve.low, curve.high, color=_BAND, linewidth=0)
    axes.plot(curve.x, curve.y, color=_INK, linewidth=1.4)


def make_plot(name: str, caption: str, draw: Draw, *, size: tuple[float, float] = _SIZE) -> Plot:
    """Draw with settings of our own: a user's matplotlibrc must not change a report."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "font.family": [_FONT], "font.size": 9, "text.parse_math": False,
            "svg.hashsalt": "report", "axes.spines.top": False, "axes.spines.right": False,
            "legend.frameon": False, "legend.fontsize": 8, "hatch.linewidth": 0.6,
        })  # fmt: skip
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        file = io.BytesIO()
        figure.savefig(file, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    return Plot(name, caption, file.getvalue())


def shorten(words: str, most: int = 28) -> str:
    """On one line, not too long, with a box for each character the font lacks."""
    known = get_font(findfont(_FONT)).get_charmap()
    plain = "".join(c if ord(c) in known else "□" for c in " ".join(words.split()))
    return plain if len(plain) <= most else plain[: most - 1] + "…"
