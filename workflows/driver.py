"""The run: slides in, steps to the engine, receipts back, one row in the worklist for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slidetriage.models import load_bundle
from slidetriage.tiling import check_masker

from .jobs import Run, Silent, Watcher
from .publishing import claim_output
from .resources import Resources, open_engine
from .settings import Settings
from .sources import find_requests
from .worklist import Row, count, rank_rows, write_worklist

__all__ = ["Resources", "TriageReport", "Watcher", "triage"]


@dataclass(frozen=True, slots=True)
class TriageReport:
    """What became of every slide of a run, in the order of the worklist."""

    out: Path
    rows: tuple[Row, ...]

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
    settings = settings or Settings()
    sources = [slides] if isinstance(slides, str | Path) else list(slides)
    requests = find_requests(sources, mpp=mpp)
    check_masker(settings.masker)
    load_bundle(settings.model)  # a model that cannot be loaded is said before anything starts
    folder = Path(out).absolute()
    with claim_output(folder) as staging:
        run = Run(requests, staging, watcher or Silent(), settings)
        try:
            with open_engine(resources or Resources(), settings, folder) as engine:
                run.drive(engine)
        finally:
            rows = tuple(rank_rows(run.rows()))
            write_worklist(folder, rows)
    return TriageReport(folder, rows)
