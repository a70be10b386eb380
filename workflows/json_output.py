"""Results for programs: one JSON object on stdout."""

from __future__ import annotations

import orjson
import typer


def print_json(value: object) -> None:
    """Print a value; paths and the like become text."""
    typer.echo(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())
