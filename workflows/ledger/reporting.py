"""The report of all runs into a folder: a page that stands alone, and lines for programs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from slidetriage.workflows.publishing import write_whole
from slidetriage.workflows.settings import RESEARCH_USE

from .audit import AuditCheck, verify_audit
from .figures import BINS, Figures, RunFigures, SlideFigures, read_figures
from .meanings import Meaning, explain
from .places import REPORT_HTML, REPORT_LINES, RUN, check_audit, plain

LONGEST_TABLE = 50
"""Rows that a table of the page shows; the rest is counted."""

_SLOWEST = 20
_PLOT_PX = (720, 160)


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time in the plot, in its pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A reason that slides were not done for."""

    code: str
    slides: int
    meaning: Meaning
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A slide that is done, and that someone should look at."""

    slide: str
    unreadable: int
    tiles: int
    warnings: tuple[str, ...]
    reasons: tuple[str, ...]
    """Why it needs a person's eyes, such as being unlike what the model learned from."""


def write_report(out: Path) -> Path:
    """Write `run/report.jsonl` and `run/report.html`; returns the page.

    Slides are named by their folder or row, and never by a path.

    Raises
    ------
    UsageError
        No run has written there, or there is no audit log.
    OutputError
        The log cannot be understood (E_LEDGER), or the report cannot be written.
    """
    path = check_audit(out)
    check = verify_audit(path)
    figures = read_figures(path)
    lines = bytearray()
    for line in _lines(figures, check):
        lines += line  # joined at the end, lines of this size leave memory in pieces
    write_whole(out / RUN / REPORT_LINES, bytes(lines))
    page = render_page(figures, check, find_doubts(out, figures.slides.values()))
    write_whole(out / RUN / REPORT_HTML, page.encode("utf-8"))
    return out / RUN / REPORT_HTML


def render_page(figures: Figures, check: AuditCheck, doubts: Iterable[Doubt]) -> str:
    """The page; all text is escaped, the plot is inside, no script is."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("slidetriage.workflows.research", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rate": _say_rate, "duration": say_duration, "size": _say_size}
    done = [each for each in figures.slides.values() if each.work.seconds > 0]
    rest = iter(doubts)
    listed = tuple(islice(rest, LONGEST_TABLE))
    return environment.get_template("run_report.html").render(
        notice=RESEARCH_USE,
        counts=figures.counts,
        runs=figures.runs[-LONGEST_TABLE:],
        more_runs=max(0, len(figures.runs) - LONGEST_TABLE),
        bars=draw_bars(figures.runs[-1]) if figures.runs else (),
        plot=_PLOT_PX,
        top=max(figures.runs[-1].throughput()) if figures.runs else 0.0,
        failures=list_failures(figures),
        doubts=listed,
        more_doubts=sum(1 for _ in rest),
        slowest=heapq.nlargest(_SLOWEST, done, key=lambda each: each.work.seconds),
        check=check,
    )


def draw_bars(run: RunFigures) -> tuple[Bar, ...]:
    """The run's tiles per second over its time, as high as the plot at their highest."""
    width, height = _PLOT_PX
    rates = run.throughput()
    top = max(rates)
    if top <= 0:
        return ()
    step = width / BINS
    return tuple(
        Bar(round(at * step, 2), round(height * (1 - rate / top), 2), round(step, 2),
            round(height * rate / top, 2))
        for at, rate in enumerate(rates)
        if rate > 0
    )  # fmt: skip


def list_failures(figures: Figures) -> tuple[Failure, ...]:
    """Each code with what it means, and the first slides that ended with it."""
    examples: dict[str, list[str]] = {}
    for row in sorted(figures.slides):
        each = figures.slides[row]
        code = getattr(each.known, "code", None)
        if code is not None and len(examples.setdefault(code, [])) < 5:
            examples[code].append(each.name)
    return tuple(
        Failure(code, count, explain(code), tuple(examples[code]))
        for code, count in figures.codes.items()
    )


def find_doubts(out: Path, slides: Iterable[SlideFigures]) -> Iterator[Doubt]:
    """Done slides with unreadable tiles, warnings, or reasons to look at them, by their results."""
    directories = sorted(
        {each.directory for each in slides if each.directory and each.state.startswith("DONE")}
    )
    for directory in directories:
        try:
            result = orjson.loads((out / directory / "result.json").read_bytes())
            doubt = Doubt(
                slide=directory,
                unreadable=int(result["tiles"]["unreadable"]),
                tiles=int(result["tiles"]["planned"]),
                warnings=tuple(plain(str(text)) for text in result["warnings"]),
                reasons=tuple(plain(str(text)) for text in result["reasons"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            yield Doubt(directory, 0, 0, ("its result cannot be read",), ())
            continue
        if doubt.unreadable or doubt.warnings or doubt.reasons:
            yield doubt


def _lines(figures: Figures, check: AuditCheck) -> Iterator[bytes]:
    """A line for each slide the log tells of, and last one for all runs."""
    for row in sorted(figures.slides):
        yield _line(figures.slides[row].as_record())
    yield _line(
        {
            "notice": RESEARCH_USE,
            "summary": figures.counts,
            "codes": figures.codes,
            "runs": [
                {
                    "run": run.run,
                    "version": run.version,
                    "how": run.how,
                    "seconds": run.seconds,
                    "slides": run.slides,
                    "ended": run.ended,
                    "tiles": run.tiles,
                    "slides_per_h": run.slides_per_h,
                    "tiles_per_s": run.tiles_per_s,
                }
                for run in figures.runs
            ],
            "audit": {"events": check.events, "head": check.head, "problem": check.problem},
        }
    )


def _line(record: dict[str, object]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _say_rate(value: float | None) -> str:
    return "no value" if value is None else f"{value:,.1f}"


def say_duration(seconds: float) -> str:
    """Time as a person says it.

    >>> say_duration(3725), say_duration(8.25)
    ('1 h 02 min', '8.2 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _say_size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"
