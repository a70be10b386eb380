"""The comparison of models as one HTML page that needs nothing beside it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from slidetriage.models.evaluation import RULE, Interval

from .compare_plots import draw_comparison
from .compare_values import ComparisonFigures
from .compare_words import difference_cell, is_share, verdict
from .report_words import interval, number, p_value, percent, share_cell


def render_comparison(figures: ComparisonFigures) -> str:
    """The page; names are escaped, pictures are inside, no script is, styles are the report's."""
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "cell": _cell, "p_value": _p, "verdict": verdict}
    return environment.get_template("compare.html").render(
        r=figures,
        plots=draw_comparison(figures),
        rule=RULE.partition("Does worse")[0].strip(),
        value=_value,
    )


def _value(name: str, value: float) -> str:
    return percent(value) if is_share(name) else number(value)


def _figure(found: Interval | None, name: str) -> str:
    """A model's own figure, as short as a table needs it."""
    if is_share(name) or found is None or found.low != found.low:  # NaN: no interval
        return share_cell(found) if is_share(name) else interval(found)
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def _cell(found: Interval | None, name: str) -> str:
    """A difference with its interval, as short as a table needs it."""
    if found is None:
        return "too small to say"
    value = difference_cell(name, found.value)
    if found.low != found.low:  # NaN: no interval
        return value
    low, high = (
        difference_cell(name, end).removesuffix(" points") for end in (found.low, found.high)
    )
    return f"{value} ({low} to {high})"


def _p(value: float) -> str:
    return p_value(value) if value == value else "no value"
