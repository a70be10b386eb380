"""Detectors of nuclei as a person sees them: a list, and a card."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from slidetriage.models.nuclei import DetectorCard


def print_detectors(cards: Sequence[DetectorCard]) -> None:
    """One line for each."""
    table = Table("detector", "version", "what it does", "mpp", "stain", "licence")
    for card in cards:
        table.add_row(
            card.name, card.version, card.summary, f"{card.mpp:g}", card.stain, card.licence
        )
    Console().print(table)


def print_detector(card: DetectorCard) -> None:
    """The whole card."""
    console = Console()
    console.print(f"{card.name} {card.version}", style="bold", markup=False)
    console.print(card.summary, markup=False)
    table = Table(show_header=False)
    table.add_row("intended use", card.intended_use)
    table.add_row("stain", card.stain)
    table.add_row("scale", f"{card.mpp:g} um/px; no slide coarser than {card.mpp_range[1]:g} um/px")
    table.add_row("margin", f"{card.margin_px} px around what is looked at")
    table.add_row("trained on", "; ".join(f"{d.name} ({d.licence})" for d in card.training.data))
    table.add_row(
        "images",
        f"{len(card.training.learned_from)} learned from, {len(card.training.held_out)} held out",
    )
    for metric in card.metrics:
        table.add_row(metric.name, f"{metric.value:.3f} on {metric.measured_on}")
    for limit in card.limits:
        table.add_row("limit", limit)
    table.add_row("licence", card.licence)
    console.print(table)
