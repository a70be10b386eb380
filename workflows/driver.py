"""The run: slides in, steps to the engine, receipts back, one row in the worklist for each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from slidetriage.errors import OutputError, UsageError
from slidetriage.models.folders import identify_bundle
from slidetriage.tiling import check_masker

from .asked import Asked, recall, remember
from .book import Book, open_book
from .jobs import More, Run
from .ledger import write_report
from .ledger.events import How
from .ledger.places import audit_path
from .observers import Silent, Watcher
from .privacy import Redactor, redacted_logs
from .publishing import claim_output
from .resources import Resources, open_engine
from .settings import CellSettings, Settings
from .sources import SlideRequest, find_requests
from .watching import Newcomers
from .worklist import Row, count, rank_rows, write_worklist

__all__ = ["Resources", "TriageReport", "Watcher", "look_closer", "resume", "triage", "watch"]


@dataclass(frozen=True, slots=True)
class TriageReport:
    """What became of every slide ever asked for in a folder, in the order of the worklist."""

    out: Path
    rows: tuple[Row, ...]
    settings: Settings
    """Of the run that wrote the worklist."""

    @property
    def counts(self) -> dict[str, int]:
        """planned, done, gaps, rejected, failed, pending; the parts add up to planned."""
        return count(self.rows)

    @property
    def complete(self) -> bool:
        """Whether every slide was done."""
        counts = self.counts
        return counts["done"] + counts["gaps"] == counts["planned"]


def triage(
    slides: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    settings: Settings | None = None,
    mpp: float | None = None,
    resources: Resources | None = None,
    watcher: Watcher | None = None,
) -> TriageReport:
    """Triage slides and publish a folder for each, with a worklist beside them.

    What a former run into the same folder did is kept where it still stands: a result whose files
    verify, or a rejection, of a slide that was not touched since, by the same model and settings.

    Parameters
    ----------
    slides
        Files, folders, globs or CSV manifests.
    out
        Folder for the results; made if missing, and owned by this run while it lasts.
    settings
        What is computed; the shipped bundle with its defaults if not given.
    mpp
        um/px stated for slides whose file does not say.
    resources
        Where it is computed; Dask workers on this machine if not given.
    watcher
        Is told how it goes.

    Raises
    ------
    UsageError, ModelError
        What was asked for makes no sense; nothing was run.
    OutputError
        Results cannot be written; slides that were finished stay.
    """
    requests = find_requests(_as_list(slides), mpp=mpp)
    asked = Asked(settings or Settings(), resources or Resources())
    return _run(Path(out), asked, watcher, lambda _: requests)


def look_closer(
    finished: str | Path,
    out: str | Path,
    *,
    settings: Settings,
    resources: Resources | None = None,
    watcher: Watcher | None = None,
) -> TriageReport:
    """Look for nuclei in the regions that a finished run flagged, and publish into another folder.

    Parameters
    ----------
    finished
        Output folder of the run; its slides must lie where they lay. Those without a result are
        left out.
    out
        Folder for the results; not the same.
    settings
        What is computed; the regions are those of the run, whatever the settings say.

    Raises
    ------
    UsageError
        No run has finished a slide there, or `out` is the same folder.
    """
    folder = Path(finished)
    if folder.resolve() == Path(out).resolve():
        raise UsageError(f"{out}: results of a run stay as they are.", mend="Give another --out.")
    from .cells.finished import finished_requests

    cells = replace(settings.cells or CellSettings(), where="given", given=str(folder.absolute()))
    requests = finished_requests(folder)
    asked = Asked(replace(settings, cells=cells), resources or Resources())
    return _run(Path(out), asked, watcher, lambda _: requests)


def watch(  # noqa: PLR0913 - as `triage`, and when to look and to stop
    folders: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    settings: Settings | None = None,
    mpp: float | None = None,
    resources: Resources | None = None,
    watcher: Watcher | None = None,
    every_s: float = 10.0,
    until: Callable[[], bool] = lambda: False,
) -> TriageReport:
    """Triage the slides in folders, and those that come, until told to stop.

    A file is taken once its size and times have stayed for two looks, `every_s` seconds apart; one
    that changes while it is read fails as E_UNSTABLE and is taken again when it has settled.

    Parameters
    ----------
    folders
        Folders that exist, searched with their sub-folders.
    out, settings, mpp, resources, watcher
        As for `triage`.
    every_s
        Seconds between two looks.
    until
        Says whether to stop; asked at every look. An interrupt stops as well.
    """
    newcomers = Newcomers(_as_list(folders), mpp=mpp, every_s=every_s, until=until)
    asked = Asked(settings or Settings(), resources or Resources())
    return _run(Path(out), asked, watcher, lambda _: [], newcomers=newcomers)


def resume(
    out: str | Path,
    *,
    resources: Resources | None = None,
    watcher: Watcher | None = None,
    codes: Collection[str] = (),
) -> TriageReport:
    """Go on with every slide ever asked for in a folder, as the last run was asked.

    Parameters
    ----------
    out
        Folder of a former run.
    resources
        Where it is computed; as in the last run if not given.
    codes
        Slides that ended with one of these codes are tried again though nothing has changed.

    Raises
    ------
    UsageError
        No run has begun there, or no slide ended with such a code.
    """
    folder = Path(out)
    asked = recall(folder)
    if resources is not None:
        asked = Asked(asked.settings, resources)

    def choose(book: Book) -> list[SlideRequest]:
        if codes and not book.forget(codes):
            raise UsageError(
                f"{out}: no slide ended with {' or '.join(sorted(codes))}.",
                mend="`slidetriage status` lists the codes.",
            )
        return book.requests

    return _run(folder, asked, watcher, choose)


def _run(
    out: Path,
    asked: Asked,
    watcher: Watcher | None,
    choose: Callable[[Book], list[SlideRequest]],
    *,
    newcomers: Newcomers | None = None,
) -> TriageReport:
    """Own the folder, do what is not done, and leave worklist, log and report behind."""
    settings, folder = asked.settings, out.absolute()
    check_masker(settings.masker)
    # Said before anything starts if they cannot be.
    model = identify_bundle(settings.model) if settings.scores_slides else ""
    computes = model
    if settings.cells is not None:
        from .cells.detecting import what_computes

        computes = what_computes(settings, model)
    with (
        claim_output(folder) as claim,
        open_book(folder, computes, settings) as book,
    ):
        entered = book.enter(choose(book))
        remember(folder, asked)
        book.begin(len(entered))
        left = [request for request in entered if book.keep(request) is None]
        notices = watcher or Silent()
        run = Run(left, claim.staging, notices, settings, book, still_ours=claim.check)
        more: More | None = None
        if newcomers is not None:
            more = newcomers.bind(book)
        how: How = "failed"
        try:
            if left or more is not None:
                with (
                    redacted_logs(Redactor(entered, settings)),
                    open_engine(asked.resources, settings, folder) as engine,
                ):
                    run.drive(engine, more)
            how = "complete"
        except KeyboardInterrupt:
            how = "interrupted"
            raise
        finally:
            claim.check()  # another run's worklist is not ours to write
            if not audit_path(folder).exists():
                raise OutputError(
                    f"{out}: the output folder has gone.",
                    mend="Bring its disk or share back, then run again.",
                )
            rows = tuple(rank_rows(book.rows()))
            write_worklist(folder, rows, settings=settings)
            book.end(how, rows)
            write_report(folder)
    return TriageReport(folder, rows, settings)


def _as_list(sources: str | Path | Iterable[str | Path]) -> list[str | Path]:
    return [sources] if isinstance(sources, str | Path) else list(sources)
