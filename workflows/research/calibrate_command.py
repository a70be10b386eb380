"""The command `calibrate`: from a training to a bundle for `slidetriage run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slidetriage.workflows.json_output import print_json
from slidetriage.workflows.options import Json, Model
from slidetriage.workflows.settings import DEFAULT_BUNDLE

from .training_options import AcceptLicence, StainMethod, StainTarget, Weights


def calibrate(  # noqa: PLR0913 - each is an option of the command
    run: Annotated[Path, typer.Argument(help="The folder that `slidetriage train` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle; not there yet.")],
    training: Annotated[
        str | None,
        typer.Option("--training", help="A folder of RUN/trainings; the first fold and seed."),
    ] = None,
    model: Model = DEFAULT_BUNDLE,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", help="Instead of a bundle's: what `slidetriage features` was given."
        ),
    ] = None,
    weights: Weights = None,
    accept_licence: AcceptLicence = False,
    stain_target: StainTarget = None,
    stain_method: StainMethod = "macenko",
    positive: Annotated[
        str | None, typer.Option("--positive", help="The class that is scored; the second.")
    ] = None,
    calibration: Annotated[
        str, typer.Option("--calibration", help="platt, isotonic or temperature.")
    ] = "platt",
    sensitivity: Annotated[
        float, typer.Option("--sensitivity", help="That the slide threshold keeps.")
    ] = 0.95,
    rule_out: Annotated[
        float, typer.Option("--rule-out", help="Sensitivity below whose threshold none need look.")
    ] = 0.99,
    error_rate: Annotated[
        float, typer.Option("--error-rate", help="Of flag and clear, within each class.")
    ] = 0.1,
    familiar: Annotated[
        float, typer.Option("--familiar", help="Share of familiar slides not called novel.")
    ] = 0.95,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the bundle; that of RUN's folder.")
    ] = None,
    version: Annotated[str, typer.Option("--bundle-version", help="Of the bundle.")] = "1.0.0",
    summary: Annotated[
        str | None, typer.Option("--summary", help="One sentence for the card.")
    ] = None,
    stain: Annotated[
        str, typer.Option("--stain", help="Of the slides, for the card.")
    ] = "unstated",
    organ: Annotated[
        str, typer.Option("--organ", help="That the slides show, for the card.")
    ] = "unstated",
    licence: Annotated[str, typer.Option("--licence", help="Of the bundle.")] = "unstated",
    json: Json = False,
) -> None:
    """Make a bundle of a training: calibrated on validation, measured on test patients."""
    from .bundle_card import Wording
    from .bundle_fitting import Wishes
    from .bundle_screen import print_bundle
    from .bundling import BundleRequest, calibrate_run
    from .encoders import StainedEncoder, fit_stain
    from .registered_encoders import RegisteredEncoder, choose_encoder

    source = choose_encoder(model, encoder, weights, accept_licence=accept_licence)
    if isinstance(source, RegisteredEncoder):
        typer.echo(source.terms, err=True)
    if stain_target is not None:
        source = StainedEncoder(source, fit_stain(stain_method, stain_target))
    wishes = Wishes(
        calibration,  # type: ignore[arg-type]  # checked there
        sensitivity,
        rule_out,
        error_rate,
        familiar,
    )
    wording = Wording(name, version, summary, stain, organ, licence)
    report = calibrate_run(BundleRequest(run, out, source, training, positive, wishes, wording))
    if json:
        print_json(report.to_json())
    else:
        print_bundle(report)
