"""The researcher's commands: features, train, evaluate. Results to stdout, all else to stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slidetriage.workflows.json_output import print_json
from slidetriage.workflows.options import (
    Device,
    Engine,
    Json,
    MinTissue,
    Model,
    Mpp,
    Out,
    Overlap,
    Precision,
    Scheduler,
    Slides,
    Tissue,
    Workers,
    choose_device,
)
from slidetriage.workflows.settings import DEFAULT_BUNDLE, Settings

from .training_options import (
    AcceptLicence,
    Arguments,
    Censored,
    Classes,
    Covariates,
    EncoderName,
    Epochs,
    Event,
    Exclude,
    Features,
    FeaturesColumn,
    Folds,
    Head,
    KeepSites,
    Label,
    Patient,
    Rate,
    RecipeParts,
    Regress,
    Seeds,
    SharedPatients,
    Site,
    Slide,
    Splits,
    StainMethod,
    StainTarget,
    Subgroups,
    Table,
    Time,
    TrainingRequest,
    Weights,
)


def features(  # noqa: PLR0913 - each is an option of the command
    slides: Slides,
    out: Out,
    model: Model = DEFAULT_BUNDLE,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="Name or name@commit of a backbone (`slidetriage models --backbones`), or a JSON "
            "card of a timm encoder, with --weights.",
        ),
    ] = None,
    weights: Weights = None,
    accept_licence: AcceptLicence = False,
    stain_target: StainTarget = None,
    stain_method: StainMethod = "macenko",
    form: Annotated[
        str, typer.Option("--form", help="zarr, or HDF5 as of trident, clam or stamp.")
    ] = "zarr",
    mpp: Mpp = None,
    engine: Engine = "dask",
    workers: Workers = None,
    scheduler: Scheduler = None,
    tissue: Tissue = "slidetriage",
    min_tissue: MinTissue = 0.25,
    overlap: Overlap = 0.0,
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
) -> None:
    """Extract the features of slides: a file for each, and a table of what came of all."""
    from slidetriage.workflows.resources import Resources
    from slidetriage.workflows.screens import ProgressWatcher
    from slidetriage.workflows.template import begin_imports

    begin_imports(engine, scheduler)
    from .encoders import StainedEncoder, fit_stain
    from .extraction import extract_features
    from .feature_station import Extraction
    from .registered_encoders import RegisteredEncoder, choose_encoder
    from .research_screens import print_extraction

    source = choose_encoder(model, encoder, weights, accept_licence=accept_licence)
    if isinstance(source, RegisteredEncoder):
        typer.echo(source.terms, err=True)
    if stain_target is not None:
        source = StainedEncoder(source, fit_stain(stain_method, stain_target))
    settings = Settings(
        masker=tissue,
        min_tissue=min_tissue,
        overlap=overlap,
        device=choose_device(device),
        precision=precision,  # type: ignore[arg-type]  # Settings checks what was typed
    )
    with ProgressWatcher() as watcher:
        report = extract_features(
            slides,
            out,
            Extraction(source, form, mpp),  # type: ignore[arg-type]  # checked there
            settings=settings,
            resources=Resources(engine, workers, scheduler),  # type: ignore[arg-type]  # the same
            watcher=watcher,
        )
    print_extraction(report, json=json)
    if not report.complete:
        raise typer.Exit(3)


def train(  # noqa: PLR0913 - each is an option of the command
    table: Table,
    out: Out,
    features: Features = None,
    slide: Slide = "slide",
    patient: Patient = "patient",
    label: Label = None,
    classes: Classes = None,
    regress: Regress = False,
    time: Time = None,
    event: Event = None,
    censored: Censored = None,
    site: Site = None,
    features_column: FeaturesColumn = None,
    encoder_name: EncoderName = None,
    covariates: Covariates = None,
    subgroups: Subgroups = None,
    exclude: Exclude = None,
    head: Head = "gated_attention",
    arguments: Arguments = None,
    folds: Folds = 5,
    splits: Splits = None,
    shared_patients: SharedPatients = "refuse",
    keep_sites: KeepSites = False,
    seeds: Seeds = 1,
    epochs: Epochs = 50,
    rate: Rate = 2e-4,
    recipe: RecipeParts = None,
    engine: Engine = "dask",
    workers: Workers = None,
    scheduler: Scheduler = None,
    json: Json = False,
) -> None:
    """Train a slide model on a table of slides by cross-validation, patients kept apart."""
    from slidetriage.workflows.resources import Resources
    from slidetriage.workflows.template import begin_imports

    begin_imports(engine, scheduler)
    request = TrainingRequest(
        table=table,
        features=features,
        encoder_name=encoder_name,
        columns={
            "slide": slide,
            "patient": patient,
            "label": label,
            "time": time,
            "event": event,
            "censored": censored,
            "site": site,
            "features": features_column,
        },
        covariates=tuple(covariates or ()),
        subgroups=tuple(subgroups or ()),
        classes=tuple(part.strip() for part in classes.split(",")) if classes else (),
        regress=regress,
        exclude=tuple(exclude or ()),
        head=head,
        arguments=tuple(arguments or ()),
        epochs=epochs,
        rate=rate,
        recipe=tuple(recipe or ()),
        folds=folds,
        splits=splits,
        shared_patients=shared_patients,
        keep_sites=keep_sites,
        seeds=seeds,
    )
    from .research_screens import TrainingScreen
    from .training_run import run_request

    resources = Resources(engine, workers, scheduler)  # type: ignore[arg-type]  # checked there
    with TrainingScreen() as screen:
        report = run_request(request, out, resources, follow=screen.follow)
    screen.print_report(report, json=json)


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(help="What `slidetriage train` wrote, or a CSV with patient, label, score."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the report; beside the predictions.")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Of the report.")] = "Validation report",
    classes: Classes = None,
    facts: Annotated[
        list[str] | None, typer.Option("--fact", help='name=text on its first page, "Head=mean".')
    ] = None,
    json: Json = False,
) -> None:
    """Make the validation report of predictions: report.html and report.json."""
    from slidetriage.errors import UsageError

    from .prediction_files import read_predictions
    from .report_writing import REPORT_HTML
    from .report_writing import evaluate as make_report
    from .training_run import PREDICTIONS

    path = predictions / PREDICTIONS if predictions.is_dir() else predictions
    names = tuple(part.strip() for part in classes.split(",")) if classes else ()
    told = dict[str, str]()
    for fact in facts or ():
        name, equals, text = fact.partition("=")
        if not (name and equals):
            raise UsageError(f"--fact {fact!r} is not name=text.", mend='Write "Head=mean".')
        told[name] = text
    folder = out or path.parent
    figures = make_report(read_predictions(path, classes=names), folder, title=title, facts=told)
    if json:
        print_json(figures.to_json())
    else:
        typer.echo(f"Report: {folder / REPORT_HTML}")
