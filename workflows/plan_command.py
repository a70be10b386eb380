"""The command that says beforehand what a run takes: `plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cell_commands import Detector, Margin, choose_where
from .json_output import print_json
from .options import (
    Device,
    Json,
    KeepFeatures,
    MinTissue,
    Model,
    Mpp,
    Overlap,
    Precision,
    Slides,
    Tissue,
    Workers,
    choose_device,
)
from .run_commands import EXIT_INCOMPLETE
from .settings import DEFAULT_BUNDLE, DEFAULT_DETECTOR, CellSettings, Settings


def plan(  # noqa: PLR0913 - each is an option of the command
    slides: Slides,
    model: Model = DEFAULT_BUNDLE,
    mpp: Mpp = None,
    workers: Workers = None,
    tissue: Tissue = "slidetriage",
    min_tissue: MinTissue = 0.25,
    overlap: Overlap = 0.0,
    device: Device = "auto",
    precision: Precision = "auto",
    keep_features: KeepFeatures = False,
    cells: Annotated[
        bool, typer.Option("--cells", help="With the nuclei of what will be flagged, at most.")
    ] = False,
    regions: Annotated[
        Path | None, typer.Option("--regions", help="As `cells --regions`: of these regions.")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="As `cells --whole`: of all tissue.")] = (
        False
    ),
    detector: Detector = DEFAULT_DETECTOR,
    margin_um: Margin = 50.0,
    json: Json = False,
) -> None:
    """Predict what a run would take: tiles, time, memory, disk. Nothing is written."""
    where = choose_where(regions, whole=whole, finished=None)
    asked = CellSettings(
        where=where,
        given="" if regions is None else str(regions.absolute()),
        detector=detector,
        margin_um=margin_um,
    )
    settings = Settings(
        model=model,
        masker=tissue,
        min_tissue=min_tissue,
        overlap=overlap,
        device=choose_device(device),
        precision=precision,  # type: ignore[arg-type]  # Settings checks what was typed
        keep_features=keep_features,
        cells=asked if cells or where != "regions" else None,
    )
    from .estimate_screen import follow, print_estimate
    from .measuring import estimate_run, process_age_s

    estimate = estimate_run(
        slides, settings, mpp=mpp, workers=workers, boot_s=process_age_s(), follow=follow
    )
    if json:
        print_json(estimate.as_record())
    else:
        print_estimate(estimate)
    if estimate.refused:
        raise typer.Exit(EXIT_INCOMPLETE)
