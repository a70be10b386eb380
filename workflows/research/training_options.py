"""The options of `slidetriage train`, and what they say together as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

Table = Annotated[Path, typer.Argument(help="CSV with a row for each slide.")]
Features = Annotated[
    Path | None,
    typer.Option("--features", help="Folder that `slidetriage features` wrote, HDF5, or .npz."),
]
Slide = Annotated[str, typer.Option("--slide-column", help="Column with the slide's name.")]
Patient = Annotated[str, typer.Option("--patient-column", help="Column with the patient.")]
Label = Annotated[str | None, typer.Option("--label-column", help="Column with what to learn.")]
Classes = Annotated[
    str | None,
    typer.Option("--classes", help="Labels in order, parted by commas, the positive one last."),
]
Regress = Annotated[bool, typer.Option("--regression", help="The label is a number to predict.")]
Time = Annotated[
    str | None, typer.Option("--time-column", help="Column with the time to event or last sight.")
]
Event = Annotated[
    str | None, typer.Option("--event-column", help="Column that says if the event was seen.")
]
Censored = Annotated[
    str | None, typer.Option("--censored-column", help="Column that says if it was not.")
]
Site = Annotated[str | None, typer.Option("--site-column", help="Column with the hospital.")]
FeaturesColumn = Annotated[
    str | None, typer.Option("--features-column", help="Column with each slide's features.")
]
EncoderName = Annotated[
    str | None, typer.Option("--encoder-name", help="What made features that do not say.")
]
Covariates = Annotated[
    list[str] | None, typer.Option("--covariate", help="Clinical column to use; may be repeated.")
]
Subgroups = Annotated[
    list[str] | None, typer.Option("--subgroup", help="Column to report by; may be repeated.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Rows to leave out: unlabelled, other-label, no-features."),
]
Head = Annotated[str, typer.Option("--head", help="How tiles are pooled, e.g. clam_sb, transmil.")]
Arguments = Annotated[
    list[str] | None, typer.Option("--head-argument", help="name=value; may be repeated.")
]
Folds = Annotated[int, typer.Option("--folds", min=2, help="Of patients, each tested once.")]
Splits = Annotated[
    Path | None, typer.Option("--splits", help="CSV of fold, part and slide, instead of --folds.")
]
SharedPatients = Annotated[
    str,
    typer.Option(
        "--shared-patients", help="Patients in two parts of --splits: refuse, drop or keep."
    ),
]
KeepSites = Annotated[
    bool, typer.Option("--keep-sites", help="Every site wholly in one fold (site-preserving).")
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Trainings of every fold.")]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="At most; it stops earlier.")]
Rate = Annotated[float, typer.Option("--rate", help="Learning rate.")]
RecipeParts = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        help="name=value: batch, patience, weight_decay, tile_dropout, feature_noise, "
        "mixed_precision and others; may be repeated.",
    ),
]

AcceptLicence = Annotated[
    bool,
    typer.Option(
        "--accept-licence", help="You have read the backbone's licence, and it allows your use."
    ),
]
Weights = Annotated[Path | None, typer.Option("--weights", help="Its .safetensors file.")]
StainTarget = Annotated[
    Path | None,
    typer.Option("--stain-target", help="An image whose colours tiles are given first."),
]
StainMethod = Annotated[
    str, typer.Option("--stain-method", help="macenko, vahadane or reinhard; by TIAToolbox.")
]


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What a user asked to be trained."""

    table: Path
    features: Path | None
    encoder_name: str | None
    columns: Mapping[str, str | None]
    """What the table calls slide, patient, label, time, event, censored, site and features."""
    covariates: tuple[str, ...] = ()
    subgroups: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    regress: bool = False
    exclude: tuple[str, ...] = ()
    head: str = "gated_attention"
    arguments: tuple[str, ...] = ()
    """`name=value`, of the head."""
    epochs: int = 50
    rate: float = 2e-4
    recipe: tuple[str, ...] = ()
    """`name=value`, of anything else in `slidetriage.models.learning.Recipe`."""
    folds: int = 5
    splits: Path | None = None
    shared_patients: str = "refuse"
    """What becomes of patients that `splits` put in two parts (see `read_splits`)."""
    keep_sites: bool = False
    seeds: int = 1
