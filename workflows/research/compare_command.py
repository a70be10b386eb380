"""The command `compare`: two or more models on the same patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from slidetriage.errors import UsageError
from slidetriage.workflows.json_output import print_json
from slidetriage.workflows.options import Json, Out

from .training_options import Classes


def compare(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more of what `slidetriage train` wrote, or CSV; the first is the baseline."
        ),
    ],
    out: Out,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="Of each model in turn; by default that of its folder."),
    ] = None,
    classes: Classes = None,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "Comparison of models",
    json: Json = False,
) -> None:
    """Compare models tested on the same patients: compare.html and compare.json."""
    from .comparing import COMPARE_HTML
    from .comparing import compare as make_comparison
    from .prediction_files import read_predictions
    from .predictions import Predictions
    from .training_run import PREDICTIONS

    called = name_models(predictions, names or ())
    order = tuple(part.strip() for part in classes.split(",")) if classes else ()
    named = dict[str, Predictions]()
    for name, given in zip(called, predictions, strict=True):
        path = given / PREDICTIONS if given.is_dir() else given
        named[name] = read_predictions(path, classes=order)
        # A column `score` of a later table is about the same class as the first's.
        order = order or named[name].classes
    figures = make_comparison(named, out, title=title)
    if json:
        print_json(figures.to_json())
        return
    for sentence in figures.said:
        typer.echo(sentence)
    typer.echo(f"Comparison: {out / COMPARE_HTML}")


def name_models(paths: Sequence[Path], names: Sequence[str]) -> tuple[str, ...]:
    """What each model is called: as told, or after its folder or file.

    Raises
    ------
    UsageError
        There are fewer than two models, or not as many names, or two are called the same.
    """
    if len(paths) < 2:
        raise UsageError(
            "There is nothing to compare with.", mend="Give the predictions of two models."
        )
    if names and len(names) != len(paths):
        raise UsageError(
            f"There are {len(names)} names for {len(paths)} models.",
            mend="Give --name once for each, in their order, or not at all.",
        )
    found = tuple(names) or tuple(map(_name_path, paths))
    twice = sorted({name for name in found if found.count(name) > 1 or not name.strip()})
    if twice:
        raise UsageError(
            f"Two models are called {twice[0]!r}, or one has no name.",
            mend="Give each a name of its own with --name.",
        )
    return found


def _name_path(path: Path) -> str:
    """A folder's name; a file's, or that of its folder where every study's file is called so."""
    whole = path.absolute()
    if whole.is_dir() or whole.stem != "predictions":
        return whole.name if whole.is_dir() else whole.stem
    return whole.parent.name
