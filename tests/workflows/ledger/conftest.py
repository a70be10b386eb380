"""A small output folder with everything a run leaves behind."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from slidetriage import Resources, triage
from slidetriage.workflows.ledger.audit import AuditLog
from slidetriage.workflows.ledger.audit_lines import digest
from slidetriage.workflows.ledger.events import (
    RunStart,
    Work,
    run_ended,
    run_started,
    slide_ended,
    slide_running,
)
from slidetriage.workflows.ledger.registry import Registry
from slidetriage.workflows.ledger.states import Ending
from slidetriage.workflows.steps import SlideResult
from slidetriage.workflows.worklist import Row, count, write_worklist
from tiny_slides import write_tiff


def record_run(out: Path, rows: list[Row]) -> None:
    """Write the record of a run as the driver does."""
    with Registry.open(out / "run") as registry:
        rows = [
            Row(replace(row.request, row=registry.add(row.request)), row.outcome) for row in rows
        ]
    with AuditLog.open(out / "run" / "audit.jsonl") as log:
        run_started(log, RunStart("first", "0.1.0", len(rows), len(rows), "m" * 64))
        for row in rows:
            number = row.request.row
            assert number is not None
            slide_running(log, number)
            outcome = row.outcome
            if isinstance(outcome, SlideResult):
                content = (out / outcome.directory / "manifest.json").read_bytes()
                slide = orjson.loads(content)["provenance"]["slide"]
                assert outcome.state in ("DONE", "DONE_WITH_GAPS")
                slide_ended(
                    log,
                    Ending(number, outcome.state, fingerprint="f", directory=outcome.directory),
                    Work(
                        2.0, outcome.tiles, outcome.unreadable, slide["bytes"], slide["sha256"],
                        digest(content),
                    ),
                )  # fmt: skip
            else:
                ending = Ending(number, "REJECTED", outcome.code, "why", fingerprint="f")
                slide_ended(log, ending, Work(0.1))
        run_ended(log, "first", "complete", count(rows))
    write_worklist(out, rows)


@pytest.fixture(scope="session")
def published(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tumour slide, one without tissue, and one that is no slide; not to be changed."""
    folder = tmp_path_factory.mktemp("ledger-slides")
    shutil.copy(phantom, folder / "tumour.tif")
    write_tiff(folder / "glass.tif", np.full((1500, 1500, 3), 244, np.uint8), mpp=1.0)
    (folder / "text.svs").write_text("no slide")
    out = tmp_path_factory.mktemp("ledger") / "out"
    report = triage(folder, out, resources=Resources("serial"))
    shutil.rmtree(out / "run", ignore_errors=True)
    record_run(out, list(report.rows))
    return out


@pytest.fixture
def out(published: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    copy = tmp_path / "out"
    shutil.copytree(published, copy)
    return copy
