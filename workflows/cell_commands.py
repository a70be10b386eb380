"""The command that looks for nuclei: `cells`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from slidetriage.errors import UsageError

from .options import (
    Deidentify,
    Device,
    Engine,
    Json,
    Model,
    Mpp,
    Precision,
    Scheduler,
    Tissue,
    Workers,
    choose_device,
)
from .run_commands import say, watching
from .settings import DEFAULT_BUNDLE, DEFAULT_DETECTOR, CellSettings, Settings, Where
from .template import begin_imports

Detector = Annotated[
    str,
    typer.Option("--detector", help="A shipped detector, 'classical', or the folder of one."),
]
Classifier = Annotated[
    str, typer.Option("--classifier", help="File of a classifier of nuclei, in place of the rule.")
]
Margin = Annotated[
    float, typer.Option("--margin-um", help="How far around regions nuclei are looked for.")
]


def cells(  # noqa: PLR0913 - each is an option of the command
    slides: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|SLIDE...",
            help="Output folder of a run, to look at its regions; or slides, as files, "
            "folders, globs or a CSV.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the results; DIR-cells if DIR is given."),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option("--regions", help="GeoJSON of regions, or a folder with one per slide."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Look through all tissue; the model does not run.")
    ] = False,
    detector: Detector = DEFAULT_DETECTOR,
    classifier: Classifier = "",
    margin_um: Margin = 50.0,
    model: Model = DEFAULT_BUNDLE,
    mpp: Mpp = None,
    engine: Engine = "dask",
    workers: Workers = None,
    scheduler: Scheduler = None,
    tissue: Tissue = "slidetriage",
    device: Device = "auto",
    precision: Precision = "auto",
    ngff: Annotated[
        str | None,
        typer.Option(
            "--ngff",
            help="OME-Zarr version of the label image: 0.5, or 0.4 for QuPath; "
            "as in the run if DIR is given.",
        ),
    ] = None,
    qupath_no_crop: Annotated[
        bool, typer.Option("--qupath-no-crop", help="GeoJSON for images opened with --no-crop.")
    ] = False,
    deidentify: Deidentify = False,
    json: Json = False,
) -> None:
    """Outline, measure and judge every nucleus where a slide looks suspicious."""
    from .ledger.places import is_output

    finished = Path(slides[0]) if len(slides) == 1 and is_output(Path(slides[0])) else None
    where = choose_where(regions, whole=whole, finished=finished)
    if out is None and finished is None:
        raise UsageError("It is not said where results go.", mend="Give a folder with --out.")
    begin_imports(engine, scheduler, cells=True)
    settings = Settings(
        model=model,
        masker=tissue,
        device=choose_device(device),
        precision=precision,  # type: ignore[arg-type]  # Settings checks what was typed
        ngff=ngff or "0.5",  # type: ignore[arg-type]  # checked by Settings
        crop_to_bounds=not qupath_no_crop,
        deidentify=deidentify,
        cells=CellSettings(
            where=where,
            given="" if regions is None else str(regions.absolute()),
            detector=detector,
            classifier=classifier,
            margin_um=margin_um,
            required=True,
        ),
    )
    from . import driver

    resources = driver.Resources(engine, workers, scheduler)  # type: ignore[arg-type]  # checked there
    with watching() as watcher:
        if finished is None:
            assert out is not None
            found = driver.triage(
                slides, out, settings=settings, mpp=mpp, resources=resources, watcher=watcher
            )
        else:
            from .asked import recall

            # Slides are called there as the run called them.
            last = recall(finished).settings
            found = driver.look_closer(
                finished,
                out or finished.with_name(f"{finished.name}-cells"),
                settings=replace(
                    settings,
                    deidentify=last.deidentify or deidentify,
                    ngff=settings.ngff if ngff else last.ngff,
                ),
                resources=resources,
                watcher=watcher,
            )
    say(found, json=json)


def choose_where(regions: Path | None, *, whole: bool, finished: Path | None) -> Where:
    """Where nuclei are looked for; raises `UsageError` for wishes that exclude one another."""
    wishes = [name for name, wish in (("--regions", regions), ("--whole", whole)) if wish]
    if len(wishes) > 1 or (wishes and finished is not None):
        asked = " and ".join([*wishes, *(["the folder of a run"] if finished else [])])
        raise UsageError(
            f"{asked} exclude one another.",
            mend="Give slides with --regions or --whole, or the folder of a run with neither.",
        )
    if regions is not None:
        return "given"
    return "tissue" if whole else "regions"
