"""Features of many slides: a file of each, whole or not at all, and what came of all in a table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slidetriage.models import Device
from slidetriage.tiling import check_masker
from slidetriage.workflows.identity import slug
from slidetriage.workflows.jobs import Run
from slidetriage.workflows.observers import Silent, Watcher
from slidetriage.workflows.publishing import claim_output, write_whole
from slidetriage.workflows.resources import Resources, open_engine
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import find_requests
from slidetriage.workflows.steps import SlideResult
from slidetriage.workflows.worklist import Row, as_cell, count

from .encoders import TileCard
from .feature_station import Extraction, FeatureStation
from .feature_values import check_form

TABLE = "features.csv"

COLUMNS = (
    "slide", "patient", "path", "features", "tiles", "unreadable", "tile_px", "mpp", "encoder",
    "state", "code", "message",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FeaturesReport:
    """What became of every slide of an extraction, in the order of their paths."""

    out: Path
    encoder: str
    """Identifier that every file states."""
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


def extract_features(
    slides: str | Path | Iterable[str | Path],
    out: str | Path,
    extraction: Extraction,
    *,
    settings: Settings | None = None,
    resources: Resources | None = None,
    watcher: Watcher | None = None,
) -> FeaturesReport:
    """Extract features and publish a file of them for each slide, with features.csv beside them.

    A slide whose features are there already, of the same content, encoder and settings, is left
    as it is.

    Parameters
    ----------
    slides
        Files, folders, globs or CSV manifests with a column `path`.
    out
        Folder for the files; made if missing, and owned by this run while it lasts.
    extraction
        By which encoder, and in which form.
    settings
        How tissue is found, how tiles overlap, what computes; `model` and what concerns a verdict
        mean nothing here.
    resources
        Where it is computed; Dask workers on this machine if not given.
    watcher
        Is told how it goes.

    Raises
    ------
    UsageError, ModelError
        What was asked for makes no sense; nothing was run.
    OutputError
        Files cannot be written; slides that were finished stay.
    """
    settings = settings or Settings()
    check_form(extraction.form)
    check_masker(settings.masker)
    sources = [slides] if isinstance(slides, str | Path) else list(slides)
    requests = find_requests(sources, mpp=extraction.mpp)
    origin = _Origin.of(extraction)
    folder = Path(out).absolute()
    names = Counter(slug(request.name) for request in requests)
    shared = frozenset(name for name, times in names.items() if times > 1)
    station = partial(FeatureStation, extraction=extraction, shared_names=shared)
    with claim_output(folder) as claim:
        notices = watcher or Silent()
        run = Run(requests, claim.staging, notices, settings, still_ours=claim.check)
        try:
            with open_engine(resources or Resources(), settings, folder, station=station) as engine:
                run.drive(engine)
        finally:
            rows = tuple(run.rows())
            _write_table(folder, rows, origin)
    return FeaturesReport(folder, origin.encoder, rows)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What all files of a run have in common; held instead of the encoder, which may be large."""

    encoder: str
    card: TileCard

    @classmethod
    def of(cls, extraction: Extraction) -> _Origin:
        """Load the encoder, so that one that cannot be loaded is said before anything starts."""
        model = extraction.encoder(Device("cpu"))
        return cls(model.identity, model.card)


def _write_table(out: Path, rows: Iterable[Row], origin: _Origin) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for record in (_record(row, origin) for row in rows):
        writer.writerow({name: as_cell(value) for name, value in record.items()})
    write_whole(out / TABLE, text.getvalue().encode("utf-8"))


def _record(row: Row, origin: _Origin) -> dict[str, object]:
    record: dict[str, object] = dict.fromkeys(COLUMNS)
    record |= {
        "slide": row.request.name,
        "patient": row.request.patient_id,
        "path": str(row.request.path),
        "state": row.state,
    }
    outcome = row.outcome
    if not isinstance(outcome, SlideResult):
        return record | {"code": outcome.code, "message": outcome.message}
    return record | {
        "features": outcome.directory,
        "tiles": outcome.tiles - outcome.unreadable,
        "unreadable": outcome.unreadable,
        "tile_px": origin.card.tile_px,
        "mpp": origin.card.mpp,
        "encoder": origin.encoder,
        "message": "; ".join(outcome.warnings) or None,
    }
