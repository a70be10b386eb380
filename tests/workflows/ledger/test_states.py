"""What the log says became of each slide is what was written into it, and it adds up."""

from __future__ import annotations

import random
from pathlib import Path
from typing import get_args

import pytest

from slidetriage.errors import OutputError
from slidetriage.workflows.ledger.audit import AuditLog, read_audit
from slidetriage.workflows.ledger.events import (
    RunStart,
    Work,
    count_registered,
    read_work,
    run_ended,
    run_started,
    slide_ended,
    slide_running,
)
from slidetriage.workflows.ledger.states import (
    Ending,
    EndState,
    Known,
    Running,
    count_codes,
    replay,
    summarise,
)


def test_the_last_word_holds(tmp_path: Path) -> None:
    """Random histories against a plain dictionary."""
    dice = random.Random(3)
    known: dict[int, Known] = {}
    path = tmp_path / "audit.jsonl"
    for run in range(3):
        with AuditLog.open(path) as log:
            run_started(log, RunStart(f"run {run}", "1", 30, 40, "m", {"overlap": 0.5}))
            for _ in range(200):
                row = dice.randrange(30)
                if dice.random() < 0.3:
                    slide_running(log, row)
                    known[row] = Running(row)
                    continue
                state = dice.choice(get_args(EndState))
                bad = not state.startswith("DONE")
                ending = Ending(
                    row, state, "E_IO" if bad else None, "why\n" if bad else "", bad,
                    f"{dice.random()}", None if bad else f"slide-{row}",
                )  # fmt: skip
                slide_ended(log, ending, Work(1.5, 10, 1, 1000, "a" * 64))
                known[row] = ending
            run_ended(log, f"run {run}", "interrupted", {"planned": 30})
    found = replay(path)
    assert found == known
    counts = summarise(found, 40)
    endings = [each.state for each in known.values() if isinstance(each, Ending)]
    assert counts["done"] == endings.count("DONE")
    assert counts["gaps"] == endings.count("DONE_WITH_GAPS")
    assert counts["pending"] == 40 - len(endings)
    assert counts.pop("planned") == sum(counts.values()) == 40
    assert count_codes(known.values()) == {
        "E_IO": endings.count("REJECTED") + endings.count("FAILED")
    }
    assert count_registered(path) == 40


@pytest.mark.parametrize("planned", [0, 1, 2, 5])
def test_the_sum_always_adds_up(planned: int) -> None:
    counts = summarise({0: Running(0), 4: Ending(4, "FAILED", "E_IO")}, planned)
    assert counts.pop("planned") == sum(counts.values()) == max(planned, 2)


def test_work_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    work = Work(2.5, 100, 3, 2**40, "a" * 64, "b" * 64)
    with AuditLog.open(path) as log:
        slide_ended(log, Ending(0, "DONE"), work)
    (record,) = read_audit(path)
    assert read_work(record) == work
    assert read_work({}) == Work()


@pytest.mark.parametrize(
    "fields",
    [
        {"row": -1}, {"row": "0"}, {"row": True}, {"row": None}, {"state": "FINE"},
        {"state": None}, {"state": ["DONE"]},
    ],
)  # fmt: skip
def test_an_event_that_makes_no_sense_is_told(tmp_path: Path, fields: dict[str, object]) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        log.append("slide_ended", **{"row": 0, "state": "DONE"} | fields)
    with pytest.raises(OutputError, match="event 0") as caught:
        replay(path)
    assert caught.value.code == "E_LEDGER"


@pytest.mark.parametrize("fields", [{"seconds": "1"}, {"tiles": -1}, {"bytes": 1.5}])
def test_work_that_makes_no_sense_is_told(fields: dict[str, object]) -> None:
    with pytest.raises(OutputError, match=next(iter(fields))):
        read_work(fields)
