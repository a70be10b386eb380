"""What `slidetriage train` was asked for, kept beside what it trained, as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.fields import read_fields, write_fields
from slidetriage.workflows.publishing import write_json

from .tables import ColumnNames
from .training_options import TrainingRequest

STUDY = "study.json"

MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A `TrainingRequest` in values that JSON has; see there."""

    schema_version: Literal[1]
    table: str
    """Absolute, as every path here."""
    features: str | None
    encoder_name: str | None
    columns: Mapping[str, object]
    """Names by what they hold, without those that were not named."""
    covariates: tuple[str, ...]
    subgroups: tuple[str, ...]
    classes: tuple[str, ...]
    regress: bool
    exclude: tuple[str, ...]
    head: str
    arguments: tuple[str, ...]
    epochs: int
    rate: float
    recipe: tuple[str, ...]
    folds: int
    splits: str | None
    shared_patients: str
    keep_sites: bool
    seeds: int


def write_study(path: Path, request: TrainingRequest) -> None:
    """Write a request; what was there is replaced in one step."""
    whole = make_absolute(request)
    record = {each.name: getattr(whole, each.name) for each in fields(whole)}
    for name in ("table", "features", "splits"):
        record[name] = None if record[name] is None else str(record[name])
    record["columns"] = {k: v for k, v in whole.columns.items() if v is not None}
    write_json(path, write_fields(StudyFile(schema_version=1, **record)))


def read_study(path: Path) -> TrainingRequest:
    """Read what `write_study` wrote; raises `UsageError` that names the field that is wrong."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        value = json.loads(text) if len(text) <= MAX_BYTES else None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}).",
            mend="Give the folder that `slidetriage train` wrote. In one of an older version the "
            "same command writes the file; what is trained is kept.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not valid JSON ({error})") from error
    try:
        told = read_fields(StudyFile, value, where=path.name)
    except ModelError as error:
        raise _damaged(path, error.what.rstrip(".")) from error
    known = {each.name for each in fields(ColumnNames)}
    for name, column in told.columns.items():
        if name not in known or not isinstance(column, str):
            raise _damaged(path, f"{path.name}.columns: {name!r} names no column")
    record = {each.name: getattr(told, each.name) for each in fields(TrainingRequest)}
    for name in ("table", "features", "splits"):
        record[name] = None if record[name] is None else Path(record[name])
    return TrainingRequest(**record)


def make_absolute(request: TrainingRequest) -> TrainingRequest:
    """The same request from wherever it is read."""
    return replace(
        request,
        table=request.table.absolute(),
        features=None if request.features is None else request.features.absolute(),
        splits=None if request.splits is None else request.splits.absolute(),
    )


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path}: {why}.",
        mend="The same `slidetriage train` writes it anew; what is trained is kept.",
    )
