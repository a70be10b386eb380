"""Checks of worklist.csv and worklist.json: a row for every slide, and sums that add up."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from .states import COUNTED, Ending, Known

WORKLIST_JSON, WORKLIST_CSV = "worklist.json", "worklist.csv"


def check_worklist(
    out: Path, states: Mapping[int, Known] | None, registered: int | None
) -> Iterator[tuple[str, str]]:
    """Everything that is wrong with the worklist: which file, and what.

    Parameters
    ----------
    states
        What the audit log says of each row; None where there is no log.
    registered
        Slides ever asked for; None where nothing tells.
    """
    try:
        record = orjson.loads((out / WORKLIST_JSON).read_bytes())
        slides, summary = record["slides"], record["summary"]
        found = [str(slide["state"]) for slide in slides]
        sums = {str(name): int(number) for name, number in summary.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield WORKLIST_JSON, "there is no worklist that can be read"
        return
    counts = {counted: found.count(state) for state, counted in COUNTED.items()}
    if sums != {"planned": len(slides), **counts}:
        yield WORKLIST_JSON, "the summary does not add up to its slides"
    if registered is not None and len(slides) != registered:
        yield WORKLIST_JSON, f"{len(slides)} slides are listed, and {registered} were asked for"
    if states is not None:
        yield from _check_rows(slides, states)
    yield from _check_csv(out / WORKLIST_CSV, slides)


def _check_rows(
    slides: list[dict[str, Any]], states: Mapping[int, Known]
) -> Iterator[tuple[str, str]]:
    """Where the worklist says something else of a slide than the audit log, or says it twice."""
    rows = [slide.get("row") for slide in slides]
    numbered = [row for row in rows if isinstance(row, int)]
    if not numbered:
        return  # rows were not numbered before there was a log
    if len(set(numbered)) < len(rows):
        yield WORKLIST_JSON, "a slide is listed twice or without its row"
    for slide in slides:
        row = slide.get("row")
        known = states.get(row) if isinstance(row, int) else None
        told: tuple[object, ...]
        if isinstance(known, Ending):
            told = (known.state, known.code, known.directory)
        else:
            told = ("PENDING", slide.get("code"), None)
        ours = (slide["state"], slide.get("code"), slide.get("directory"))
        if ours != told:
            yield (
                WORKLIST_JSON,
                f"row {row} is {_say(ours)} here and {_say(told)} in the audit log",
            )


def _check_csv(path: Path, slides: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    from slidetriage.workflows.worklist import as_cell

    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        yield WORKLIST_CSV, "there is no worklist that can be read"
        return
    if len(lines) != len(slides):
        yield WORKLIST_CSV, f"it has {len(lines)} rows, and {WORKLIST_JSON} has {len(slides)}"
        return
    for rank, (line, slide) in enumerate(zip(lines, slides, strict=True), start=1):
        if line != {name: str(as_cell(value)) for name, value in slide.items()}:
            yield WORKLIST_CSV, f"the row of rank {rank} is not that of {WORKLIST_JSON}"


def _say(told: tuple[object, ...]) -> str:
    return " ".join(str(part) for part in told if part is not None)
