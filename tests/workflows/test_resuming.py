"""What a run leaves is what the next one goes on from: nothing is lost, nothing done twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import pytest

from slidetriage import Resources, Settings, triage
from slidetriage.errors import UsageError
from slidetriage.workflows.driver import resume, watch
from slidetriage.workflows.ledger import read_audit, verify_audit, verify_output
from tiny_slides import write_tiff
from trees import tree

SERIAL = Resources("serial")


def begun(out: Path) -> list[int]:
    """The rows that work began on, as often as it did."""
    return [e["row"] for e in read_audit(out / "run/audit.jsonl") if e["event"] == "slide_running"]


def ended(out: Path) -> list[int]:
    """The rows that ended, as often as they did."""
    return [e["row"] for e in read_audit(out / "run/audit.jsonl") if e["event"] == "slide_ended"]


def glass(path: Path, grey: int) -> Path:
    """A slide without tissue, which takes no time."""
    return write_tiff(path, np.full((600, 600, 3), grey, np.uint8), mpp=2.0)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(3):
        glass(folder / f"s{number}.tif", 240 + number)
    (folder / "text.svs").write_text("no slide")
    return folder


def run(*arguments: str, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    program = "from slidetriage.workflows.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "SLIDETRIAGE_CRASH_AT": crash_at},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.slow
def test_a_killed_run_is_resumed_to_the_same_bytes(slides: Path, tmp_path: Path) -> None:
    want = tmp_path / "want"
    triage(slides, want, resources=SERIAL)
    out = tmp_path / "out"
    ended = run(
        "run", str(slides), "--out", str(out), "--engine", "serial", crash_at="publish.renamed#2"
    )
    assert ended.returncode == -9, ended.stderr
    assert (out / ".staging").exists()
    ended = run("resume", str(out), "--json")
    assert ended.returncode == 3, ended.stderr  # the text is no slide
    summary = orjson.loads(ended.stdout)["summary"]
    assert summary == {
        "planned": 4, "done": 3, "gaps": 0, "rejected": 1, "failed": 0, "pending": 0,
    }  # fmt: skip
    assert tree(out) == tree(want)
    assert not (out / ".staging").exists()
    assert not (out / ".slidetriage.lock").exists()
    assert len(begun(out)) <= 5, "two slides at most were in work"
    assert verify_audit(out / "run/audit.jsonl").problem is None
    assert list(verify_output(out)) == []


def test_what_changed_is_done_again_and_what_did_not_is_kept(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    triage(slides, out, resources=SERIAL)
    assert sorted(begun(out)) == [0, 1, 2]
    resume(out)
    assert len(begun(out)) == 3, "nothing is done twice"
    stays = os.stat(slides / "s1.tif")
    glass(slides / "s1.tif", 200)
    os.utime(slides / "s1.tif", ns=(stays.st_atime_ns, stays.st_mtime_ns))
    report = resume(out)
    assert begun(out)[3:] == [1], "a change shows although size and mtime are the same"
    assert report.counts["done"] == 3
    old = {path.name for path in out.glob("s1-*")}
    assert len(old) == 2, "the result of what the slide was stays beside the new one"
    glass(slides / "text.svs", 230)
    assert resume(out).counts == {
        "planned": 4, "done": 4, "gaps": 0, "rejected": 0, "failed": 0, "pending": 0,
    }  # fmt: skip


def test_a_damaged_result_is_made_anew(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    triage(slides, out, resources=SERIAL)
    before = tree(out)
    (folder,) = out.glob("s2-*")
    path = folder / "result.json"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    assert any(finding.directory == folder.name for finding in verify_output(out))
    shutil.rmtree(folder)
    resume(out)
    assert tree(out) == before


def test_rejected_slides_are_tried_again_by_code_only(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    triage(slides, out, resources=SERIAL)
    resume(out, codes={"E_NOT_SLIDE"})
    assert ended(out)[4:] == [3]
    with pytest.raises(UsageError, match="E_NO_MPP"):
        resume(out, codes={"E_NO_MPP"})
    with pytest.raises(UsageError, match="no run has begun"):
        resume(tmp_path / "elsewhere")


def test_a_second_run_keeps_the_rows_of_the_first(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    triage(slides / "s0.tif", out, resources=SERIAL)
    report = triage([slides / "s1.tif", slides / "text.svs"], out, resources=SERIAL)
    assert {row.request.path.name for row in report.rows} == {"s0.tif", "s1.tif", "text.svs"}
    assert report.counts["done"] == 2
    status = run("status", str(out), "--json")
    assert orjson.loads(status.stdout)["summary"] == report.counts


def test_slides_are_taken_as_a_scanner_finishes_them(tmp_path: Path) -> None:
    folder, out = tmp_path / "scanner", tmp_path / "out"
    folder.mkdir()
    whole = glass(tmp_path / "whole.tif", 240).read_bytes()
    stop = threading.Event()

    def scan() -> None:
        with (folder / "slow.tif").open("wb") as file:
            for start in range(0, len(whole), len(whole) // 6 + 1):
                file.write(whole[start : start + len(whole) // 6 + 1])
                file.flush()
                time.sleep(0.3)
        shutil.copy(tmp_path / "whole.tif", folder / "late.tif")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (
            list(out.glob("slow-*")) and list(out.glob("late-*"))
        ):
            time.sleep(0.2)
        stop.set()

    scanner = threading.Thread(target=scan)
    scanner.start()
    report = watch(
        folder, out, settings=Settings(), resources=SERIAL, every_s=0.5, until=stop.is_set
    )
    scanner.join()
    assert report.counts["done"] == 2
    assert report.counts["planned"] == 2
    with pytest.raises(UsageError, match="no such folder"):
        watch(tmp_path / "nowhere", out, resources=SERIAL)
