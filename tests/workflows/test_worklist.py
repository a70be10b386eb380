"""The worklist: a row for every slide, the most suspicious first, safe in a spreadsheet."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from slidetriage.models.trust import Verdict
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.steps import SlideFailure, SlideResult
from slidetriage.workflows.worklist import COLUMNS, Row, count, rank_rows, triage, write_worklist


def done(
    name: str,
    score: float | None,
    *,
    gaps: bool = False,
    verdict: Verdict | None = None,
    ruled_out: bool = False,
) -> Row:
    result = SlideResult(
        slide_id=f"{name}-0123456789ab",
        state="DONE_WITH_GAPS" if gaps else "DONE",
        verdict=verdict or ("needs eyes" if score is None else "flag"),
        score=score,
        directory=f"{name}-0123456789ab",
        regions=1,
        flagged_mm2=0.5,
        tissue_mm2=10.0,
        tiles=100,
        unreadable=int(gaps),
        warnings=(),
        reasons=("why eyes",) if score is None else (),
        ruled_out=ruled_out,
    )
    return Row(SlideRequest(Path(f"{name}.svs"), name), result)


def failed(name: str, *, rejected: bool, code: str = "E_NO_MPP") -> Row:
    failure = SlideFailure("plan", code, "why", rejected)
    return Row(SlideRequest(Path(f"{name}.svs"), name), failure)


ROWS = [
    done("low", 0.1),
    done("high", 0.9),
    done("gaps", 0.5, gaps=True),
    done("empty", None),
    failed("bad", rejected=True),
    failed("broken", rejected=False),
    failed("waiting", rejected=False, code="E_PENDING"),
]


def test_the_most_suspicious_comes_first_and_none_is_missing() -> None:
    shuffled = ROWS.copy()
    random.Random(3).shuffle(shuffled)
    names = [row.request.name for row in rank_rows(shuffled)]
    assert names[:3] == ["high", "gaps", "low"]
    assert sorted(names) == sorted(row.request.name for row in ROWS)
    assert names == [row.request.name for row in rank_rows(ROWS)]


def test_flags_come_before_what_needs_eyes_and_what_is_clear() -> None:
    rows = [
        done("clear", 0.05, verdict="clear"),
        done("strange", 0.01, verdict="needs eyes"),
        done("unsure", 0.3, verdict="needs eyes"),
        done("flag", 0.2, verdict="flag"),
        failed("broken", rejected=False),
    ]
    names = [row.request.name for row in rank_rows(rows)]
    assert names == ["flag", "unsure", "strange", "clear", "broken"]


def test_how_much_needs_no_look() -> None:
    clear = done("clear", 0.01, verdict="clear", ruled_out=True)
    assert triage([clear, done("high", 0.9), done("none", None), failed("bad", rejected=True)]) == {
        "flag": 1,
        "needs eyes": 1,
        "clear": 1,
        "ruled_out": 1,
        "ruled_out_share": pytest.approx(1 / 3),
        "ruled_out_tissue_share": pytest.approx(1 / 3),
    }
    nothing = triage([failed("bad", rejected=True)])
    assert (nothing["ruled_out_share"], nothing["ruled_out_tissue_share"]) == (None, None)


def test_the_sum_adds_up() -> None:
    counts = count(ROWS)
    assert counts == {
        "planned": 7,
        "done": 3,
        "gaps": 1,
        "rejected": 1,
        "failed": 1,
        "pending": 1,
    }
    assert counts["planned"] == sum(v for k, v in counts.items() if k != "planned")


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    write_worklist(tmp_path, ROWS)
    with (tmp_path / "worklist.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    listed = json.loads((tmp_path / "worklist.json").read_text())
    assert tuple(table[0]) == COLUMNS
    assert [row["slide_id"] for row in table] == [row["slide_id"] for row in listed["slides"]]
    assert [row["rank"] for row in table] == [str(n) for n in range(1, 8)]
    assert listed["summary"]["planned"] == 7
    assert "Research Use Only" in listed["notice"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    row = Row(SlideRequest(Path(text), text, patient_id=text), failed("x", rejected=True).outcome)
    write_worklist(tmp_path, [row])
    with (tmp_path / "worklist.csv").open(newline="", encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    for column in ("slide_id", "patient_id", "path"):
        assert cells[column] == f"'{text}"
