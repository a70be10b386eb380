"""The slides of a run that has results, asked for again."""

from __future__ import annotations

from pathlib import Path

import orjson

from slidetriage.errors import UsageError
from slidetriage.workflows.ledger.places import RUN, check_output, slides_path
from slidetriage.workflows.ledger.registry import Registry
from slidetriage.workflows.sources import SlideRequest


def finished_requests(out: Path) -> list[SlideRequest]:
    """As they were asked for, those slides of an output folder that have a result there.

    Raises `UsageError` where no run was, or none of its slides has a result.
    """
    check_output(out)
    try:
        rows = orjson.loads((out / "worklist.json").read_bytes())["slides"]
        done = {row["row"] for row in rows if row["directory"] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{out}: its worklist.json cannot be read ({error}).",
            mend="Go on with the run by `slidetriage resume`, which writes it anew.",
        ) from error
    requests: list[SlideRequest] = []
    if slides_path(out).is_file():
        with Registry.open(out / RUN) as registry:
            requests = [r for r in registry.requests if r.row in done]
    if not requests:
        raise UsageError(
            f"{out}: no slide has a result here.",
            mend="Name the output folder of a finished run, or a slide.",
        )
    return requests
