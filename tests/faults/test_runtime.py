"""The fault matrix, F: what goes wrong while a run lasts, on slides with nothing wrong.

Disks and shares that fail are played by strace, and by `hooks/sitecustomize.py` where the moment or
the number of faults matters over several processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.bench import Run, left_visible, make_once, one, run_cli, tree
from faults.cases import BY_NUMBER
from faults.painted import write_good

HOOKS = Path(__file__).with_name("hooks")
TIMEOUT_S = 100.0
EVERY, TILES = "read,pread64", "pread64"
"""System calls by which a slide is read at all, and by which its tiles are."""

OPENING, READING = "choose_reader", "read_tiles"
"""Functions within which a slide is opened, and its tiles read."""


def tool(name: str) -> str:
    """A program's path; skips where there is none, fails where CI should have it."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@dataclass(frozen=True)
class Stage:
    """Two slides, what a clean run makes of them, and room for another run."""

    slide: Path
    """The faults concern this one."""
    other: Path
    out: Path
    clean: Run

    def run(self, *options: str, prefix: Sequence[str] = (), **environment: str) -> Run:
        """Run both."""
        return run_cli(
            [self.slide, self.other], self.out, *options,
            prefix=prefix, timeout_s=TIMEOUT_S, environment=environment,
        )  # fmt: skip

    def injected(self, calls: str, fault: str, *options: str) -> Run:
        """Run both while strace makes system calls on the slide fail."""
        strace = [
            tool("strace"), "-f", "-qq", "-o", os.devnull, "--seccomp-bpf", "-e", f"trace={calls}",
            "-P", str(self.slide), "-e", f"inject={calls}:{fault}",
        ]  # fmt: skip
        return self.run(*options, prefix=strace)

    def hooked(
        self, do: str, *options: str, within: str = READING, other: Path | None = None
    ) -> Run:
        """Run both while something happens at a read of the slide (see `hooks`)."""
        mark = self.out.with_name("mark")
        variables = {"FILE": self.slide, "DO": do, "AT": 12, "IN": within, "MARK": mark}
        named = {f"FAULTS_{name}": str(value) for name, value in variables.items()}
        run = self.run(*options, FAULTS_OTHER=str(other or ""), PYTHONPATH=str(HOOKS), **named)
        assert mark.exists(), f"the fault never happened: {run.stderr[-2000:]}"
        return run

    def is_whole(self, run: Run) -> None:
        """Both slides have the very results of the clean run."""
        assert run.returncode == 0, (run.rows, run.stderr[-2000:])
        for path in (self.slide, self.other):
            ours, theirs = (r.out / str(r.row(path)["directory"]) for r in (run, self.clean))
            assert tree(ours) == tree(theirs)
        self.is_tidy(run)

    def is_lost(self, run: Run, case: int, *words: str, state: str = "FAILED") -> None:
        """The slide failed with its case's code and said why; the other is as it should be."""
        row = run.row(self.slide)
        codes = [end for end in BY_NUMBER[case].expected if end.startswith("E_")]
        assert row["state"] == state, row
        assert row["code"] in codes, row
        assert self.slide.stem in row["message"], row
        for word in words:
            assert any(w in row["message"].lower() for w in word.split("|")), (word, row)
        assert run.returncode == 3, run.stderr[-2000:]
        ours, theirs = (r.out / str(r.row(self.other)["directory"]) for r in (run, self.clean))
        assert tree(ours) == tree(theirs)
        self.is_tidy(run)

    def is_tidy(self, run: Run) -> None:
        """Nothing half-made is to be seen, no process is left, no traceback was shown."""
        assert left_visible(run.out) == []
        assert run.orphans == ()
        assert "Traceback" not in run.stderr


@pytest.fixture
def stage(shared: Path, tmp_path: Path) -> Stage:
    """The slides anew for each test, since some of them are changed."""

    def make(here: Path) -> Run:
        slides = (write_good(here / "faulty.svs", 3), write_good(here / "sound.svs", 4))
        return run_cli(slides, here / "results")

    clean = one(make_once(shared, "runtime", make))
    assert clean.returncode == 0, clean.stderr
    before = {Path(row["path"]).name: row for row in clean.rows}
    paths = []
    for name in ("faulty.svs", "sound.svs"):
        paths.append(Path(shutil.copy(before[name]["path"], tmp_path / name)))
        before[name]["path"] = str(paths[-1])
    return Stage(*paths, tmp_path / "results", clean)


def test_66_one_read_that_fails_is_made_good(stage: Stage) -> None:
    stage.is_whole(stage.hooked("fail"))


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "when"), [(TILES, 12), ("read", 3)])
def test_66_so_is_one_that_the_system_fails(stage: Stage, calls: str, when: int) -> None:
    """Amid the tiles, and before any."""
    stage.is_whole(stage.injected(calls, f"error=EIO:when={when}"))


@pytest.mark.slow
def test_67_a_slide_that_cannot_be_read_at_all_fails(stage: Stage) -> None:
    run = stage.injected(EVERY, "error=EIO:when=1+")
    stage.is_lost(run, 67, "disk|share", "run again")


def test_67_a_disk_that_breaks_amid_the_tiles_fails_the_slide(stage: Stage) -> None:
    stage.is_lost(stage.hooked("break"), 67, "disk|share", "run again")


@pytest.mark.parametrize("within", [pytest.param(OPENING, marks=pytest.mark.slow), READING])
def test_68_a_share_that_comes_back_costs_nothing(stage: Stage, within: str) -> None:
    stage.is_whole(stage.hooked("drop", within=within))


@pytest.mark.slow
def test_69_a_read_that_hangs_is_given_up_and_made_again(stage: Stage) -> None:
    run = stage.hooked("stall", "--stall", "3")
    stage.is_whole(run)
    assert run.seconds < 60, "it did not wait for the read"


def test_69_reads_that_always_hang_fail_the_slide(stage: Stage) -> None:
    stage.is_lost(stage.hooked("hang", "--stall", "2"), 69, "hung|answer", "again")


@pytest.mark.slow
def test_69_so_do_reads_that_hang_in_the_system(stage: Stage) -> None:
    fault = "delay_enter=60000000:when=12+"
    stage.is_lost(stage.injected(TILES, fault, "--stall", "2"), 69, "hung|answer", "again")


def test_70_few_open_files_do_or_say_so(stage: Stage) -> None:
    run = stage.run(prefix=[tool("prlimit"), "--nofile=64:64", "--"])
    if run.returncode == 0:
        stage.is_whole(run)
        return
    assert run.returncode in (3, 74), run.stderr[-2000:]
    said = "; ".join(row["message"] for row in run.rows if row["code"]) + run.stderr
    assert "too many open files" in said.lower()
    stage.is_tidy(run)


def test_71_another_slide_in_its_place_is_noticed(stage: Stage) -> None:
    twin = Path(shutil.copy(stage.other, stage.slide.with_name("twin.tmp")))
    stage.is_lost(stage.hooked("swap", other=twin), 71, "changed", "run again")


def test_72_memory_for_no_tile_fails_the_slide(stage: Stage) -> None:
    run = stage.run(FAULTS_STUB="memory 0")
    assert {row["code"] for row in run.rows} == {"E_OUT_OF_MEMORY"}, run.rows
    assert {row["state"] for row in run.rows} == {"FAILED"}
    assert all("memory" in row["message"] and "smaller" in row["message"] for row in run.rows)
    assert run.returncode in (2, 3)
    stage.is_tidy(run)


@pytest.mark.parametrize("kind", [pytest.param("memory", marks=pytest.mark.slow), "cuda"])
def test_73_memory_for_fewer_tiles_gives_the_same(stage: Stage, kind: str) -> None:
    run = stage.run(FAULTS_STUB=f"{kind} 8")
    assert run.returncode == 0, run.rows
    for path in (stage.slide, stage.other):
        ours, theirs = run.row(path), stage.clean.row(path)
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)
        assert ours["tiles"] == theirs["tiles"], "the tiles' size is never changed"
        manifest = json.loads((run.out / ours["directory"] / "manifest.json").read_text())
        assert "memory did not suffice" in json.dumps(manifest["provenance"]["runtime"])
    stage.is_tidy(run)


def test_74_numbers_that_are_none_fail_the_slide(stage: Stage) -> None:
    run = stage.run(FAULTS_STUB="nan")
    assert {(row["state"], row["code"]) for row in run.rows} == {("FAILED", "E_MODEL_NAN")}, (
        run.rows
    )
    assert all("impossible numbers" in row["message"] for row in run.rows)
    assert run.returncode == 3
    stage.is_tidy(run)


FULL = """
set -u
mount -t tmpfs -o size=64m tmpfs "$ROOM"
head -c "$((64 * 1024 * 1024 - $FREE))" /dev/zero > "$ROOM/ballast" || exit 9
"$@" > "$KEPT/first.out" 2> "$KEPT/first.err"; echo $? > "$KEPT/first.rc"
cp -a "$ROOM/out" "$KEPT/first"
rm "$ROOM/ballast"
"$@" > "$KEPT/second.out" 2> "$KEPT/second.err"; echo $? > "$KEPT/second.rc"
cp -a "$ROOM/out" "$KEPT/second"
"""
"""Runs the same command twice on a small disk: nearly full, and with room again."""


def test_75_a_full_disk_keeps_what_is_done_and_the_next_run_goes_on(
    stage: Stage, tmp_path: Path
) -> None:
    unshare = [tool("unshare"), "-m"] if os.geteuid() == 0 else [tool("unshare"), "-rm"]
    room, kept = tmp_path / "room", tmp_path / "kept"
    room.mkdir()
    kept.mkdir()
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "x", str(room)], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    sizes = sorted(
        sum(path.stat().st_size for path in (stage.clean.out / row["directory"]).rglob("*"))
        for row in stage.clean.rows
    )
    free = sizes[-1] + sizes[0] // 2 + (600 << 10)
    prefix = [*unshare, "sh", "-c", FULL, "sh"]
    run_cli(
        [stage.slide, stage.other], room / "out",
        prefix=prefix, timeout_s=TIMEOUT_S,
        environment={"ROOM": str(room), "KEPT": str(kept), "FREE": str(free)},
    )  # fmt: skip
    said = (kept / "first.err").read_text()
    assert (kept / "first.rc").read_text() == "74\n", said
    assert "No space left" in said
    assert "Free space" in said or "Check the disk" in said
    assert "Traceback" not in said
    assert left_visible(kept / "first") == []
    names = {str(row["directory"]) for row in stage.clean.rows}
    for folder in names & {path.name for path in (kept / "first").iterdir()}:
        assert tree(kept / "first" / folder) == tree(stage.clean.out / folder)
    assert (kept / "second.rc").read_text() == "0\n", (kept / "second.err").read_text()
    for folder in names:
        assert tree(kept / "second" / folder) == tree(stage.clean.out / folder)
    assert left_visible(kept / "second") == []


def test_76_an_output_that_may_not_be_written_is_said_before_any_work(stage: Stage) -> None:
    stage.out.mkdir(mode=0o555)
    run = stage.run()
    stage.out.chmod(0o755)
    if not os.geteuid() and not shutil.which("setpriv"):
        pytest.skip("root may write anywhere, and setpriv is not installed")
    assert run.returncode == 74, run.stderr[-2000:]
    assert str(stage.out) in run.stderr
    assert "--out" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.rows == []
    assert list(stage.out.iterdir()) == []
    assert run.orphans == ()


@pytest.mark.parametrize("within", [pytest.param(OPENING, marks=pytest.mark.slow), READING])
def test_76_an_output_that_vanishes_ends_the_run(stage: Stage, within: str) -> None:
    run = stage.hooked("vanish", within=within, other=stage.out)
    assert run.returncode == 74, run.stderr[-2000:]
    assert "Traceback" not in run.stderr
    assert run.orphans == ()


def test_every_case_of_this_section_has_a_test() -> None:
    tested = {int(name[5:7]) for name in globals() if name[:5] == "test_" and name[5:7].isdecimal()}
    assert tested == {number for number, case in BY_NUMBER.items() if case.section == "F"}
