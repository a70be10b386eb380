"""The worklist: a row for every slide, the most suspicious first, safe in a spreadsheet."""

from __future__ import annotations

import csv
import json
import random
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from slidetriage.models.trust import Verdict
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.steps import SlideFailure, SlideResult
from slidetriage.workflows.worklist import (
    COLUMNS,
    Row,
    as_cell,
    as_records,
    count,
    rank_rows,
    triage,
    write_worklist,
)


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


def result_of(row: Row) -> SlideResult:
    assert isinstance(row.outcome, SlideResult)
    return row.outcome


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


PAYLOADS = (
    "=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\0=1",
    "\uff1d1", "\uff0b1", "\uff0d1", "\uff201",
)  # fmt: skip


@pytest.mark.parametrize("text", PAYLOADS, ids=ascii)
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    refused = Row(
        SlideRequest(Path(text), text, patient_id=text), SlideFailure("plan", text, text, True)
    )
    result = replace(result_of(done("x", 0.5)), slide_id=text, directory=text, warnings=(text,))
    write_worklist(tmp_path, [refused, Row(SlideRequest(Path(text), text), result)])
    with (tmp_path / "worklist.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2
    for cells in table:
        for column, cell in cells.items():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\0")), column
            assert unicodedata.normalize("NFKC", cell)[:1] not in {"=", "+", "-", "@"}, column
    assert table[0]["slide_id"] in (f"'{text}", text.encode("unicode_escape").decode())


@pytest.mark.parametrize("value", [-1, -0.5, -1e-12])
def test_numbers_stay_numbers(value: float) -> None:
    assert as_cell(value) is value


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("right\u202eleft", "right\\u202eleft"),
        ("undecodable\udcff", "undecodable\\udcff"),
        ("Müller 中文", "Müller 中文"),
    ],
)
def test_what_cannot_be_printed_is_shown_escaped(tmp_path: Path, name: str, shown: str) -> None:
    failure = SlideFailure("plan", "E_NOT_SLIDE", f"{name}: why", rejected=True)
    write_worklist(tmp_path, [Row(SlideRequest(Path(f"{name}.svs"), name), failure)])
    with (tmp_path / "worklist.csv").open(newline="", encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    (record,) = json.loads((tmp_path / "worklist.json").read_text())["slides"]
    assert record["reason"] == cells["reason"] == f"{shown}: why"
    assert record["slide_id"] == cells["slide_id"] == shown
    assert record["file"] == cells["file"] == f"{shown}.svs"
    assert (tmp_path / "worklist.csv").read_text(encoding="utf-8").count("\n") == 2


def test_neither_path_nor_patient_is_listed(tmp_path: Path) -> None:
    request = SlideRequest(Path("/ward/Doe/7.svs"), "7", patient_id="MRN77", row=3)
    rows = [Row(request, failed("x", rejected=True).outcome)]
    (record,) = as_records(rows)
    assert tuple(record) == COLUMNS
    assert (record["row"], record["slide_id"], record["file"]) == (3, "7", "7.svs")
    write_worklist(tmp_path, rows)
    for path in tmp_path.iterdir():
        assert not {"Doe", "MRN77", "ward"} & set(path.read_text().replace("/", '"').split('"'))


def test_without_names_a_slide_that_failed_is_called_by_its_row() -> None:
    hidden = Settings(deidentify=True)
    request = SlideRequest(Path("/ward/Doe.svs"), "Doe", row=12)
    (record,) = as_records([Row(request, failed("x", rejected=True).outcome)], settings=hidden)
    assert (record["slide_id"], record["file"]) == ("slide-row-000012", None)
    (record,) = as_records([Row(request, done("slide", 0.5).outcome)], settings=hidden)
    assert (record["slide_id"], record["file"]) == ("slide-0123456789ab", None)
