"""`slidetriage models --backbones`: the registered pathology backbones and their terms."""

from __future__ import annotations

from typing import Annotated

import typer

from slidetriage.errors import UsageError
from slidetriage.workflows.json_output import print_json
from slidetriage.workflows.options import Json


def models(
    context: typer.Context,
    backbones: Annotated[
        bool,
        typer.Option("--backbones", help="List what `slidetriage features --encoder` knows."),
    ] = False,
    json: Json = False,
) -> None:
    """List model bundles and show their cards; with --backbones, list pathology backbones."""
    command = context.invoked_subcommand
    if command is not None:
        if backbones or json:
            raise UsageError(
                f"Before {command}, --backbones and --json mean nothing.",
                mend=f"Put --json after {command}, or leave {command} out.",
            )
        return
    if not backbones:
        raise UsageError(
            "--json needs something to list.", mend="Give --backbones, or the command list."
        )
    records = describe_backbones()
    if json:
        print_json(records)
    else:
        print_backbones(records)


def describe_backbones() -> list[dict[str, object]]:
    """What is registered of every backbone, sorted by name."""
    from slidetriage.models.foreign import find_backbone, list_backbones

    return [
        {
            "name": backbone.name,
            "repository": backbone.repository,
            "architecture": backbone.architecture,
            "parameters_millions": backbone.parameters_millions,
            "mpp": backbone.mpp,
            "input_px": backbone.input_px,
            "feature_size": backbone.feature_size,
            "licence": backbone.licence,
            "commercial": backbone.commercial,
            "gated": backbone.gated,
            "note": backbone.note,
        }
        for backbone in map(find_backbone, list_backbones())
    ]


def print_backbones(records: list[dict[str, object]]) -> None:
    """One line for each backbone."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("backbone", no_wrap=True)
    for heading in ("um/px", "px", "features"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    table.add_column("commercial use")
    table.add_column("gated")
    for record in records:
        table.add_row(
            *(str(record[name]) for name in ("name", "mpp", "input_px", "feature_size", "licence")),
            "yes" if record["commercial"] else "no",
            "yes" if record["gated"] else "no",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "Their weights are not part of slidetriage. Gated: the hub asks for an account and consent."
        "\nUse one: slidetriage features SLIDES --encoder NAME --weights FILE",
        markup=False,
    )
