"""What `slidetriage calibrate` shows: where the bundle is, how it measured, what it lacks."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from slidetriage.workflows.settings import RESEARCH_USE

from .bundling import BundleReport


def print_bundle(report: BundleReport) -> None:
    """The figures on test patients, the notes, and how to run the bundle."""
    card, console = report.card, Console(highlight=False)
    table = Table("on test patients", "figure", "95 % interval", box=None)
    for each in card.metrics:
        table.add_row(each.name, f"{each.value:.3f}", f"{each.low:.3f} to {each.high:.3f}")
    console.print(table)
    for warning in report.warnings:
        console.print(f"Note: {warning}", markup=False)
    console.print(
        f"{card.name} {card.version}, of {report.training}, scores {card.positive.name}; flagged "
        f"from {card.slide_threshold.value:.3f}.\n"
        f"Bundle: {report.out} (slidetriage run SLIDES --model {report.out} --out RESULTS)\n"
        f"{RESEARCH_USE}",
        markup=False,
        soft_wrap=True,
    )
