"""From predictions to a validation report: report.json and report.html."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slidetriage.errors import OutputError
from slidetriage.workflows.publishing import write_json, write_whole

from .predictions import Predictions
from .report_figures import REPEATS, measure_report
from .report_values import ReportFigures

REPORT_JSON, REPORT_HTML = "report.json", "report.html"


def evaluate(
    predictions: Predictions,
    out: Path,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    seed: int = 0,
    repeats: int = REPEATS,
) -> ReportFigures:
    """Measure, and write `report.json` and `report.html` into the folder `out`.

    Parameters
    ----------
    facts
        What the report opens with, by name: `Question`, `Head` and others.

    Raises
    ------
    UsageError
        Nothing can be measured (see `measure_report`); nothing is written then.
    OutputError
        The folder cannot be written to.
    """
    from .report_page import render_page

    figures = measure_report(predictions, title=title, facts=facts, seed=seed, repeats=repeats)
    page = render_page(figures)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{out}: the folder cannot be made ({error.strerror}).", mend="Name another."
        ) from error
    write_json(out / REPORT_JSON, figures.to_json())
    write_whole(out / REPORT_HTML, page.encode("utf-8"))
    return figures
