"""Runs the real command line in a process of its own and notes the report that it ends with.

The first argument is the file for the notes, the others are the command's. FAULTS_STUB in the
environment gives the model a fault: `nan`, or `memory N` where more than N tiles at a time do not
fit on the device, `cuda N` where it is a GPU's memory. Pictures take most of the time: they are
drawn only where FAULTS_DRAW is set, and never of slides called good, which must not differ.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slidetriage.workflows import cli, driver, finishing
from slidetriage.workflows.steps import SlideFailure
from slidetriage.workflows.worklist import Row

Told = dict[str, Any]


def tell(row: Row) -> Told:
    """What became of a slide, as plain values."""
    outcome, told = row.outcome, {"path": str(row.request.path), "state": row.state}
    if isinstance(outcome, SlideFailure):
        return {**told, "code": outcome.code, "message": outcome.message}
    words = "; ".join((*outcome.warnings, *outcome.reasons))
    return {
        **told, "code": None, "message": words, "directory": outcome.directory,
        "verdict": outcome.verdict, "tiles": outcome.tiles, "score": outcome.score,
    }  # fmt: skip


def stub_model(fault: str) -> None:
    """Give every model a fault."""
    import torch

    from slidetriage.models.runtime import Lanes

    kind, _, most = fault.partition(" ")
    borrow = Lanes.borrow

    @contextmanager
    def faulty(lanes: Lanes) -> Iterator[Any]:
        if kind != "nan" and lanes.batch_tiles > int(most):
            raise torch.OutOfMemoryError("CUDA") if kind == "cuda" else MemoryError
        with borrow(lanes) as runner:

            def spoilt(images: Any) -> Any:
                features = runner(images)
                features[len(features) // 2 :, 0] = np.nan
                return features

            yield spoilt if kind == "nan" else runner

    Lanes.borrow = faulty  # type: ignore[assignment, method-assign]


def save_pictures() -> None:
    """Draw only what is asked for."""
    plain = finishing.draw_overlay

    def draw(path: Path, **shown: Any) -> None:
        if os.environ.get("FAULTS_DRAW") and not shown["caption"].slide_id.startswith("good-"):
            plain(path, **shown)
        else:
            path.write_bytes(b"no picture")

    finishing.draw_overlay = draw


def main() -> None:
    """Run the command that the arguments name."""
    save_pictures()
    if os.environ.get("FAULTS_STUB"):
        stub_model(os.environ["FAULTS_STUB"])
    notes, triage = Path(sys.argv[1]), driver.triage

    def noting(*arguments: Any, **options: Any) -> driver.TriageReport:
        report = triage(*arguments, **options)
        notes.write_bytes(pickle.dumps([tell(row) for row in report.rows]))
        return report

    driver.triage = noting
    sys.argv = ["slidetriage", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    main()
