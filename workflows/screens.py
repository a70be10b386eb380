"""What the command line shows: progress while it runs, tables when it is done."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from slidetriage.models import Card
from slidetriage.wsi import Level, Slide

from .driver import TriageReport, Watcher
from .settings import RESEARCH_USE
from .steps import BatchReceipt, CellPlan, SlideFailure, SlidePlan
from .worklist import URGENCY, Row, triage

LONGEST_TABLE = 20
"""Rows shown; the rest stands in worklist.csv."""


class ProgressWatcher:
    """Bars on stderr: slides done, tiles read, tiles per second, time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._slides = self._progress.add_task("slides", total=None, speed="")
        self._tiles = self._progress.add_task("tiles", total=0, speed="")

    def __enter__(self) -> ProgressWatcher:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def started(self, slides: int) -> None:
        """Show how many slides there are."""
        self._progress.update(self._slides, total=slides)

    def planned(self, plan: SlidePlan) -> None:
        """Add the slide's tiles to what is to be done."""
        total = self._progress.tasks[self._tiles].total or 0
        self._progress.update(self._tiles, total=total + len(plan.tiles))

    def located(self, cells: CellPlan) -> None:
        """Add the windows to what is to be done."""
        total = self._progress.tasks[self._tiles].total or 0
        self._progress.update(self._tiles, total=total + len(cells.windows))

    def read(self, receipt: BatchReceipt) -> None:
        """Move the bar of tiles."""
        self._progress.advance(self._tiles, receipt.tiles)
        speed = self._progress.tasks[self._tiles].speed
        self._progress.update(self._tiles, speed=f"{speed:.0f} tiles/s" if speed else "")

    def ended(self, row: Row) -> None:
        """Move the bar of slides; a failure is said at once."""
        self._progress.advance(self._slides)
        if isinstance(row.outcome, SlideFailure):
            self._console.print(
                f"{row.state} {row.request.name}: {row.outcome.code}: {row.outcome.message}",
                style="yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def print_report(report: TriageReport) -> None:
    """The worklist's head, the sum that adds up, and where everything lies."""
    console = Console()
    table = Table(title="Worklist, most suspicious first", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("slide", overflow="fold")
    table.add_column("outcome", no_wrap=True)
    for heading in ("score", "regions", "mm2", "of mm2"):
        table.add_column(heading, justify="right", no_wrap=True)
    for rank, row in enumerate(report.rows[:LONGEST_TABLE], start=1):
        table.add_row(str(rank), *_cells(row))
    console.print(table)
    if len(report.rows) > LONGEST_TABLE:
        console.print(f"... and {len(report.rows) - LONGEST_TABLE} more in worklist.csv")
    names = {"gaps": "with gaps"}
    counts = {names.get(name, name): number for name, number in report.counts.items()}
    planned = counts.pop("planned")
    parts = " + ".join(f"{number} {name}" for name, number in counts.items())
    console.print(f"{planned} planned = {parts}", highlight=False)
    console.print(_say_triage(report), highlight=False)
    console.print(f"Results: {report.out}", highlight=False, soft_wrap=True, markup=False)
    console.print(RESEARCH_USE, style="dim")


def _say_triage(report: TriageReport) -> str:
    """The verdicts, and how much of the tissue needs no look."""
    found = triage(report.rows)
    text = ", ".join(f"{found[verdict]} {verdict}" for verdict in URGENCY)
    share = found["ruled_out_tissue_share"]
    if isinstance(share, float) and found["ruled_out"]:
        text += f"; {found['ruled_out']} ruled out, {share:.0%} of the tissue"
    return text


def _cells(row: Row) -> tuple[str, ...]:
    outcome = row.outcome
    if isinstance(outcome, SlideFailure):
        return row.request.name, f"{row.state} {outcome.code}", "-", "-", "-", "-"
    return (
        outcome.slide_id,
        outcome.verdict + (" (gaps)" if outcome.state == "DONE_WITH_GAPS" else ""),
        "-" if outcome.score is None else f"{outcome.score:.3f}",
        str(outcome.regions),
        f"{outcome.flagged_mm2:.2f}",
        f"{outcome.tissue_mm2:.2f}",
    )


def print_slide(slide: Slide) -> None:
    """A slide's facts as a table."""
    table = Table(show_header=False, title=slide.path.name, title_justify="left")
    table.add_row("format", slide.vendor)
    table.add_row("reader", f"{slide.reader}: {slide.reader_reason}")
    table.add_row("size", f"{slide.width_px} x {slide.height_px} px, {_size_mm(slide)}")
    table.add_row("mpp", f"{slide.mpp.x:g} x {slide.mpp.y:g} um/px ({slide.mpp.source})")
    power = slide.objective_power
    table.add_row("objective power", "not stated" if power is None else f"{power:g}x")
    table.add_row("levels", "\n".join(_level_text(level) for level in slide.levels))
    bounds = slide.bounds
    table.add_row(
        "bounds", f"{bounds.width:g} x {bounds.height:g} px at ({bounds.x:g}, {bounds.y:g})"
    )
    table.add_row("files", str(len(slide.files)))
    for warning in slide.warnings:
        table.add_row("warning", warning)
    Console().print(table)


def _level_text(level: Level) -> str:
    made = ", averaged" if level.averaged else ""
    return f"{level.width_px} x {level.height_px} (1/{level.downsample:g}{made})"


def _size_mm(slide: Slide) -> str:
    width, height = slide.width_px * slide.mpp.x / 1000, slide.height_px * slide.mpp.y / 1000
    return f"{width:.2f} x {height:.2f} mm"


def print_cards(cards: list[Card]) -> None:
    """One line for each model."""
    table = Table("model", "version", "finds", "mpp", "tile", "stain and tissue", "licence")
    for card in cards:
        table.add_row(
            card.name,
            card.version,
            card.positive.name,
            f"{card.mpp:g}",
            f"{card.tile_px} px",
            f"{card.stain}, {card.tissue}",
            card.licence,
        )
    Console().print(table)


def print_card(card: Card) -> None:
    """A model's card for a person."""
    console = Console()
    console.print(f"{card.name} {card.version}", style="bold", markup=False)
    console.print(card.summary, markup=False)
    table = Table(show_header=False)
    table.add_row("intended use", card.intended_use)
    table.add_row("stain and tissue", f"{card.stain}, {card.tissue}")
    table.add_row("scale", f"{card.mpp:g} um/px, tiles of {card.tile_px} px")
    table.add_row(
        "slide threshold", f"{card.slide_threshold.value:.3f}: {card.slide_threshold.chosen}"
    )
    if card.rule_out is not None:
        table.add_row("rule-out", f"below {card.rule_out.value:.3f}: {card.rule_out.chosen}")
    if card.conformal is not None:
        table.add_row(
            "conformal",
            f"flag, clear or needs eyes at an error rate of {card.conformal.error_rate:.0%}, "
            f"fitted on {sum(card.conformal.fitted_on)} slides",
        )
    if card.novelty is not None:
        table.add_row(
            "novelty",
            f"needs eyes beyond {card.novelty.limit:.2f}; {card.novelty.kept:.0%} of familiar "
            f"slides stay within ({card.novelty.measured_on})",
        )
    table.add_row(
        "tile threshold", f"{card.tile_threshold.value:.3f}: {card.tile_threshold.chosen}"
    )
    table.add_row("trained on", "; ".join(f"{d.name} ({d.licence})" for d in card.training.data))
    table.add_row("patients", f"{card.training.patients} ({card.training.tiles} tiles)")
    for metric in card.metrics:
        table.add_row(
            metric.name,
            f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}] on {metric.measured_on}",
        )
    for limit in card.limits:
        table.add_row("limit", limit)
    table.add_row("licence", card.licence)
    console.print(table)


_proof: type[Watcher] = ProgressWatcher
