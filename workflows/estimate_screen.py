"""What `slidetriage plan` shows: a row for every slide, and what the run will take in all."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import track
from rich.table import Table

from .cell_estimate import CellEstimate
from .estimate import CAVEAT, Refusal, RunEstimate, SlideEstimate
from .sources import SlideRequest

FEW = 3
"""So many slides are named, more are counted."""


def follow(requests: list[SlideRequest]) -> Iterable[SlideRequest]:
    """The slides one by one, with a bar on stderr."""
    return track(requests, "slides", console=Console(stderr=True), transient=True)


def print_estimate(estimate: RunEstimate) -> None:
    """The table of slides, then the slides that cannot be done, then the totals."""
    console = Console()
    if estimate.planned:
        console.print(_table(estimate.planned))
    for line in _reader_lines(estimate.planned):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for refusal in estimate.refused:
        console.print(_refusal_text(refusal), style="yellow", markup=False, soft_wrap=True)
    for name, text in _totals(estimate):
        console.print(f"{name:<8} {text}", highlight=False, markup=False, soft_wrap=True)
    console.print(CAVEAT, style="dim")


def _table(slides: list[SlideEstimate]) -> Table:
    table = Table(title="What a run would do", title_justify="left")
    table.add_column("slide", overflow="fold")
    for heading in ("Gpx", "mpp"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("reader", no_wrap=True)
    for heading in ("mm2", "tiles", "time", "disk"):
        table.add_column(heading, justify="right", no_wrap=True)
    for slide in slides:
        table.add_row(
            slide.request.name,
            f"{slide.gigapixels:.3f}",
            f"{slide.slide.mpp.x:g}",
            slide.slide.reader,
            f"{slide.tissue_mm2:.1f}",
            f"{slide.tiles:,}",
            duration(slide.seconds),
            size(slide.result_bytes),
        )
    return table


def _reader_lines(slides: list[SlideEstimate]) -> list[str]:
    """Why each reader is taken; the slides are named where they are few."""
    names: dict[str, list[str]] = {}
    for slide in slides:
        why = f"{slide.slide.reader}: {slide.slide.reader_reason}"
        names.setdefault(why, []).append(slide.request.name)
    return [
        f"Reader   {why} ({', '.join(of) if len(of) <= FEW else f'{len(of)} slides'})"
        for why, of in sorted(names.items())
    ]


def _refusal_text(refusal: Refusal) -> str:
    return f"CANNOT {refusal.request.name}: {refusal.failure.code}: {refusal.failure.message}"


def _totals(estimate: RunEstimate) -> list[tuple[str, str]]:
    machine, planned = estimate.machine, estimate.planned
    tiles = sum(slide.tiles for slide in planned)
    workers = f"{machine.workers} worker{'s' if machine.workers > 1 else ''}"
    nuclei = [] if estimate.cells is None else [("Nuclei", _cells_text(estimate.cells))]
    return [
        ("Slides", f"{len(planned)} can be done, {len(estimate.refused)} cannot"),
        (
            "Tiles",
            f"{tiles:,}; {estimate.card.name} does {machine.network_tiles_s:.0f}/s by itself",
        ),
        (
            "Time",
            f"{duration(estimate.seconds)} with {workers} on {machine.cores} cores, "
            f"{duration(machine.start_s)} of it to start",
        ),
        (
            "Memory",
            f"{size(estimate.memory_bytes)}: {workers} of {size(estimate.worker_bytes)}, "
            f"and {size(machine.driver_bytes)} to drive them",
        ),
        (
            "Disk",
            f"{size(estimate.result_bytes)} of results, "
            f"and up to {size(estimate.staging_bytes)} while running",
        ),
        *nuclei,
    ]


def _cells_text(cells: CellEstimate) -> str:
    """How much is read at high power, and what that takes beside the rest."""
    if not cells.windows:
        return "nothing to look at: no tissue, no region in it, or pixels too coarse"
    area = f"{cells.looked_at_mm2:.2f} mm2 ({cells.tissue_share:.0%} of the tissue)"
    took = f"{duration(cells.seconds)} and {size(cells.result_bytes)} more"
    if cells.at_most:
        return (
            f"in flagged regions only, a part of the tissue that the run finds; were all flagged, "
            f"{area} in {cells.windows:,} windows at {cells.mpp:g} um/px: {took}"
        )
    return f"{area} in {cells.windows:,} windows at {cells.mpp:g} um/px: {took}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best.

    >>> duration(7.2), duration(200), duration(9000)
    ('7 s', '3.3 min', '2.5 h')
    """
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes in units of 1000, as disks are sold.

    >>> size(20_000), size(1_234_567), size(56_000_000_000)
    ('20 kB', '1.23 MB', '56 GB')
    """
    value, units = count / 1e3, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1e3, units[1:]
    return f"{value:.3g} {units[0]}"
