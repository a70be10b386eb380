"""The commands that triage: `run`, `resume` and `retry`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .json_output import print_json
from .options import (
    Deidentify,
    Device,
    Engine,
    Json,
    KeepFeatures,
    MinTissue,
    Model,
    Mpp,
    NgffVersion,
    Out,
    Overlap,
    Precision,
    Scheduler,
    Slides,
    Tissue,
    Workers,
    choose_device,
)
from .settings import DEFAULT_BUNDLE, CellSettings, Settings
from .template import begin_imports

if TYPE_CHECKING:
    # Loading these takes seconds, which `--help` need not wait for.
    from .driver import TriageReport, Watcher

EXIT_INCOMPLETE = 3


OutputOfRun = Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a run.")]
Codes = Annotated[list[str], typer.Option("--code", help="Such as E_TRUNCATED; may be repeated.")]
OtherEngine = Annotated[
    str | None, typer.Option("--engine", help="dask or serial; as in the last run if not given.")
]


def run(  # noqa: PLR0913 - each is an option of the command
    slides: Slides,
    out: Out,
    model: Model = DEFAULT_BUNDLE,
    mpp: Mpp = None,
    engine: Engine = "dask",
    workers: Workers = None,
    scheduler: Scheduler = None,
    tissue: Tissue = "slidetriage",
    min_tissue: MinTissue = 0.25,
    overlap: Overlap = 0.0,
    max_unreadable: Annotated[
        float, typer.Option("--max-unreadable", help="Share of tiles that may be unreadable.")
    ] = 0.001,
    device: Device = "auto",
    precision: Precision = "auto",
    ngff: NgffVersion = "0.5",
    gz: Annotated[bool, typer.Option("--gz", help="Write .geojson.gz.")] = False,
    qupath_no_crop: Annotated[
        bool, typer.Option("--qupath-no-crop", help="GeoJSON for images opened with --no-crop.")
    ] = False,
    keep_features: KeepFeatures = False,
    deidentify: Deidentify = False,
    stall: Annotated[
        float, typer.Option("--stall", help="Seconds after which a decoder is held to hang.")
    ] = 30.0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on for ever: take slides as a scanner writes them.")
    ] = False,
    cells: Annotated[
        bool, typer.Option("--cells", help="Look for abnormal nuclei in the flagged regions.")
    ] = False,
    json: Json = False,
) -> None:
    """Triage slides and write a folder for each, with a worklist beside them."""
    begin_imports(engine, scheduler, cells=cells)
    settings = Settings(
        model=model,
        masker=tissue,
        min_tissue=min_tissue,
        overlap=overlap,
        max_unreadable=max_unreadable,
        device=choose_device(device),
        precision=precision,  # type: ignore[arg-type]  # Settings checks what was typed
        ngff=ngff,  # type: ignore[arg-type]  # checked by Settings
        compress_geojson=gz,
        crop_to_bounds=not qupath_no_crop,
        keep_features=keep_features,
        deidentify=deidentify,
        cells=CellSettings() if cells else None,
        stall_s=stall,
    )
    from . import driver

    resources = driver.Resources(engine, workers, scheduler)  # type: ignore[arg-type]  # checked there
    begin = driver.watch if watch else driver.triage
    with watching() as watcher:
        found = begin(slides, out, settings=settings, mpp=mpp, resources=resources, watcher=watcher)
    say(found, json=json)


def resume(
    directory: OutputOfRun,
    engine: OtherEngine = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    json: Json = False,
) -> None:
    """Go on with every slide that is not done, as the last run was asked."""
    _again(directory, (), (engine, workers, scheduler), json=json)


def retry(
    directory: OutputOfRun,
    code: Annotated[
        list[str], typer.Option("--code", help="Such as E_TRUNCATED; may be repeated.")
    ],
    engine: OtherEngine = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    json: Json = False,
) -> None:
    """Try slides again that ended with a code, though nothing about them has changed."""
    _again(directory, code, (engine, workers, scheduler), json=json)


def _again(
    directory: Path,
    codes: Sequence[str],
    where: tuple[str | None, int | None, str | None],
    *,
    json: bool,
) -> None:
    from . import driver
    from .asked import recall

    engine, workers, scheduler = where
    resources = None
    if where != (None, None, None):
        last = recall(directory).resources
        resources = driver.Resources(
            engine or last.engine,  # type: ignore[arg-type]  # checked there
            workers or last.workers,
            scheduler or last.scheduler,
        )
    with watching() as watcher:
        found = driver.resume(directory, resources=resources, watcher=watcher, codes=codes)
    say(found, json=json)


@contextmanager
def watching() -> Iterator[Watcher]:
    """Progress is shown while this lasts."""
    from .screens import ProgressWatcher

    with ProgressWatcher() as watcher:
        yield watcher


def say(report: TriageReport, *, json: bool) -> None:
    """Print what became of the run; exit 3 where some slides were not done."""
    if json:
        from .worklist import as_records

        print_json(
            {
                "out": str(report.out),
                "summary": report.counts,
                "slides": as_records(report.rows, settings=report.settings),
            }
        )
    else:
        from .screens import print_report

        print_report(report)
    if not report.complete:
        raise typer.Exit(EXIT_INCOMPLETE)
