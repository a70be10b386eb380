"""The validation report as one HTML page that needs nothing beside it."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from slidetriage.models.evaluation import RULE, SubgroupFigure

from .report_plots import draw_plots
from .report_values import ReportFigures
from .report_words import interval, number, p_value, percent, share_cell


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group with all its figures, as the page shows it."""

    group: str
    patients: int
    positives: int
    negatives: int
    cells: tuple[tuple[str, bool], ...]
    """What each figure is, and whether it is worse than the rest's."""
    warning: str


@dataclass(frozen=True, slots=True)
class GroupSection:
    """All groups of one column."""

    column: str
    figures: tuple[str, ...]
    rows: tuple[GroupRow, ...]


def render_page(figures: ReportFigures) -> str:
    """The page; text from the table of slides is escaped, pictures are inside, no script is."""
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "interval": interval,
        "p_value": p_value,
        "share": share_cell,
    }
    return environment.get_template("report.html").render(
        r=figures,
        plots=draw_plots(figures),
        sections=list_sections(figures),
        rule=RULE,
    )


def list_sections(figures: ReportFigures) -> tuple[GroupSection, ...]:
    """The tables of groups turned so that each group is one row; of several classes, a table each.

    Counts differ between classes, so there a section has one figure.
    """
    if figures.multiclass is not None:
        return tuple(
            section for table in figures.groups for section in _turn(figures, (table.figure,))
        )
    return _turn(figures, tuple(table.figure for table in figures.groups))


def _turn(figures: ReportFigures, names: tuple[str, ...]) -> tuple[GroupSection, ...]:
    tables = [table for table in figures.groups if table.figure in names]
    sections: dict[str, list[GroupRow]] = {}
    for alike in zip(*(table.rows for table in tables), strict=True):
        first = alike[0]
        worse = any(row.warning.startswith("does worse") for row in alike)
        warning = "worse than the rest where underlined" if worse else first.warning
        sections.setdefault(first.column, []).append(
            GroupRow(
                group=first.group,
                patients=first.patients,
                positives=first.positives,
                negatives=first.negatives,
                cells=tuple(map(_cell, alike)),
                warning=warning,
            )
        )
    return tuple(GroupSection(name, names, tuple(rows)) for name, rows in sections.items())


def _cell(row: SubgroupFigure) -> tuple[str, bool]:
    found, worse = row.figure, row.warning.startswith("does worse")
    if found is None:
        return "no value", worse
    if found.low != found.low:  # NaN: no interval
        return number(found.value, 2), worse
    return f"{number(found.value, 2)} ({number(found.low, 2)}-{number(found.high, 2)})", worse
