"""The report adds up, names no path, and stays small."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest

import slidetriage.errors
from slidetriage.errors import OutputError, UsageError
from slidetriage.workflows.ledger.audit import AuditLog, verify_audit
from slidetriage.workflows.ledger.events import (
    RunStart,
    Work,
    run_ended,
    run_started,
    slide_ended,
    slide_running,
)
from slidetriage.workflows.ledger.figures import BINS, RunFigures, read_figures
from slidetriage.workflows.ledger.meanings import MEANINGS, UNKNOWN, explain
from slidetriage.workflows.ledger.reporting import draw_bars, say_duration, write_report
from slidetriage.workflows.ledger.states import Ending


class Page(HTMLParser):
    """The words of a page, its tables by section, and the tags it uses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, int] = {}
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("src", "href") if name in given]
        if tag == "section":
            self._section = given["id"] or ""
        if tag == "tr":
            self.rows[self._section] = self.rows.get(self._section, -1) + 1

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read_report(out: Path) -> tuple[Page, list[dict[str, object]]]:
    page = Page((out / "run" / "report.html").read_text())
    lines = (out / "run" / "report.jsonl").read_bytes().splitlines()
    return page, [orjson.loads(line) for line in lines]


def test_a_real_run_is_reported(out: Path) -> None:
    path = write_report(out)
    assert path == out / "run" / "report.html"
    page, lines = read_report(out)
    text = " ".join(page.words)
    assert "3 planned = 2 done + 0 with gaps + 1 rejected + 0 failed + 0 pending" in text
    assert "Research Use Only" in text
    assert verify_audit(out / "run" / "audit.jsonl").head in text
    assert "E_NOT_SLIDE" in text
    assert MEANINGS["E_NOT_SLIDE"].mend in text
    assert "no tissue" in text, "glass needs eyes"
    assert [line["row"] for line in lines[:-1]] == [0, 1, 2]
    worklist = orjson.loads((out / "worklist.json").read_bytes())
    asked = {row["row"]: row for row in worklist["slides"]}
    for line in lines[:-1]:
        row = asked[line["row"]]
        assert (line["state"], line["code"]) == (row["state"], row["code"])
        assert line["slide"] == (row["directory"] or f"row {row['row']}")
        assert line["tiles"] == (row["tiles"] or 0)
    assert lines[-1]["summary"] == worklist["summary"]


def test_the_page_stands_alone_and_names_no_path(out: Path) -> None:
    write_report(out)
    page, _ = read_report(out)
    assert page.addresses == []
    assert "script" not in page.tags
    for name in ("report.html", "report.jsonl"):
        text = (out / "run" / name).read_text()
        for secret in (str(out), "text.svs", "tumour.tif", "ledger-slides", "/tmp"):
            assert secret not in text


def make_log(out: Path, slides: int, *, code: str = "E_IO", name: str = "slide") -> None:
    (out / "worklist.json").touch()
    with AuditLog.open(out / "run" / "audit.jsonl") as log:
        run_started(log, RunStart("r", "1", slides, slides, "m"))
        for row in range(slides):
            slide_running(log, row)
            if row % 3 == 0:
                slide_ended(log, Ending(row, "DONE", directory=f"{name}-{row}"), Work(1.0, 9))
            elif row % 3 == 1:
                slide_ended(log, Ending(row, "FAILED", code, "/secret/Doe.svs", True), Work(1.0))


def test_many_slides_make_a_small_page(tmp_path: Path) -> None:
    """Every table is cut, and says how much it leaves out; the lines hold everything."""
    make_log(tmp_path, 3000)
    write_report(tmp_path)
    assert (tmp_path / "run" / "report.html").stat().st_size < 50_000
    page, lines = read_report(tmp_path)
    text = " ".join(page.words)
    assert page.rows["quality"] == 50
    assert "And 950 more" in text
    assert page.rows["slowest"] == 20
    assert "995 more" in text
    assert "1,000 done + 0 with gaps + 0 rejected + 1,000 failed + 1,000 pending" in text
    assert len(lines) == 3001
    assert "secret" not in text
    assert sum(line.get("state") == "PENDING" for line in lines) == 1000


def test_what_is_planted_in_the_log_is_escaped(tmp_path: Path) -> None:
    make_log(tmp_path, 4, code="<script>alert(1)</script>", name="<img src=x onerror=alert(1)>")
    write_report(tmp_path)
    page, _ = read_report(tmp_path)
    assert not {"script", "img"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.words


@pytest.mark.parametrize("directory", ["../../etc", "/etc", "..", "a/b"])
def test_no_folder_outside_is_read(tmp_path: Path, directory: str) -> None:
    out = tmp_path / "a" / "out"
    out.mkdir(parents=True)
    (out.parent / "result.json").write_text('{"tiles": {}}')
    make_log(out, 0)
    with AuditLog.open(out / "run" / "audit.jsonl") as log:
        slide_ended(log, Ending(0, "DONE", directory=directory), Work(1.0))
    write_report(out)
    _, lines = read_report(out)
    assert lines[0]["slide"] == "row 0"
    assert "etc" not in (out / "run" / "report.html").read_text()


def figures_of(began: float, last: float, *slides: tuple[float, float, int]) -> RunFigures:
    run = RunFigures("r", "1", began, len(slides), last)
    for slide in slides:
        run.ends.extend(slide)
    return run


def test_throughput_keeps_every_tile() -> None:
    """The area under the bars is the number of tiles, wherever slides began and ended."""
    run = figures_of(100, 700, (400, 300, 60), (700, 10, 30), (250, 0, 7), (650, 9999, 13))
    rates = run.throughput()
    assert len(rates) == BINS
    assert sum(rates) * 600 / BINS == pytest.approx(60 + 30 + 7 + 13)
    assert rates[0] == pytest.approx(60 / 300 + 13 / 550)
    assert rates[-1] == pytest.approx(30 / 10)
    assert rates[-3] == 0
    bars = draw_bars(run)
    assert max(bar.height for bar in bars) == 160
    assert all(bar.x >= 0 and bar.x + bar.width <= 720.01 and bar.y >= 0 for bar in bars)


def test_a_clock_that_was_set_back_breaks_nothing() -> None:
    run = figures_of(1000, 400, (400, 5, 10))
    assert (run.seconds, run.slides_per_h, run.tiles_per_s) == (0, None, None)
    assert sum(run.throughput()) == 0
    assert draw_bars(run) == ()
    run = figures_of(1000, 2000, (400, 5, 10), (9000, 5, 10))
    assert sum(run.throughput()) * 1000 / BINS == pytest.approx(20)


def test_runs_are_counted_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(path) as log:
        for number in range(2):
            run_started(log, RunStart(f"r{number}", "1", 2, 2 + number, "m"))
            for row in range(2):
                slide_ended(log, Ending(row, "DONE", directory=f"s{row}"), Work(1.0, 10))
            if number == 0:
                run_ended(log, "r0", "interrupted", {})
    figures = read_figures(path)
    assert [(run.run, run.how, run.ended, run.tiles) for run in figures.runs] == [
        ("r0", "interrupted", 2, 20),
        ("r1", "not ended", 2, 20),
    ]
    assert figures.counts["planned"] == 3
    assert figures.counts["pending"] == 1


def test_every_code_a_slide_can_end_with_is_explained() -> None:
    """All that errors.py lists, but those that end a command rather than a slide."""
    listed = set(re.findall(r"E_[A-Z_]+", slidetriage.errors.__doc__ or ""))
    commands = {"E_TABLE", "E_SPLIT", "E_SURVIVAL", "E_FEATURES", "E_FEATURES_MIXED", "E_LEDGER"}
    assert listed - commands - MEANINGS.keys() == set()
    assert all(what.endswith(".") and mend.endswith(".") for what, mend in MEANINGS.values())
    assert explain("E_SOMETHING") == UNKNOWN


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59, "59.0 s"), (61, "1 min"), (86_400, "24 h 00 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert say_duration(seconds) == said


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        write_report(tmp_path)
    (tmp_path / "worklist.json").touch()
    with pytest.raises(UsageError, match="audit log"):
        write_report(tmp_path)
    make_log(tmp_path, 3)
    path = tmp_path / "run" / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"time":"2', b'"time":"x', 1))
    with pytest.raises(OutputError, match="event 0"):
        write_report(tmp_path)
