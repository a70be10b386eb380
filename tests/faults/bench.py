"""Runs a batch of specimens through the real command line and keeps all that it left behind."""

from __future__ import annotations

import atexit
import csv
import fcntl
import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import slidetriage
from faults.specimens import Specimen
from faults.warm import Order, WarmStart
from slidetriage.workflows.manifest import verified_key

CHILD = Path(__file__).with_name("child.py")
PATHS = tuple(str(Path(of).parents[1]) for of in (slidetriage.__file__, __file__))
"""Where a command finds slidetriage and the tests."""

ENDED_WITHIN_S = 5.0
"""For what the command started, after it has ended itself."""

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Run:
    """What a command left behind."""

    out: Path
    returncode: int | None
    """None where it had to be killed because it hung."""
    rows: list[dict[str, Any]]
    stdout: str
    stderr: str
    peak_kb: int
    seconds: float
    orphans: tuple[str, ...]

    def row(self, path: Path) -> dict[str, Any]:
        """What became of one slide; fails where it was lost."""
        found = [row for row in self.rows if os.fsencode(row["path"]) == os.fsencode(path)]
        assert len(found) == 1, (
            f"{len(found)} rows for {path.name!r}; exit status {self.returncode}, "
            f"{self.seconds:.0f} s: {self.stderr[-2000:]}"
        )
        return found[0]


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every file by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_cli(
    slides: Sequence[Path],
    out: Path,
    *options: str,
    prefix: Sequence[str] = (),
    timeout_s: float = 120,
    environment: dict[str, str] | None = None,
) -> Run:
    """`slidetriage run` on slides with the serial engine; killed when it takes too long.

    It is started cold under a `prefix`, else forked from a process that has imported all.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    notes, said, complained = (out.with_name(f"{out.name}.{end}") for end in ("rows", "out", "err"))
    arguments = [
        str(notes), "run", *(os.fspath(slide) for slide in slides), "--out", str(out),
        "--engine", "serial", "--json", *options,
    ]  # fmt: skip
    given = environment or {}
    first = (given["PYTHONPATH"],) if "PYTHONPATH" in given else ()
    paths = os.pathsep.join((*first, *PATHS))
    given = {**os.environ, "OMP_NUM_THREADS": "1", **given, "PYTHONPATH": paths}
    began = time.monotonic()
    if prefix:
        command = [*prefix, *_without_privilege(), sys.executable, str(CHILD), *arguments]
        with said.open("wb") as stdout, complained.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                env=given,
            )
            pid = process.pid
            returncode, peak_kb = _wait(process, timeout_s)
    else:
        order = Order(arguments, given, str(said), str(complained))
        pid, returncode, peak_kb = _warm().run(order, timeout_s)
    seconds = time.monotonic() - began
    orphans = _orphans(pid)
    rows = pickle.loads(notes.read_bytes()) if notes.exists() else []
    texts = (path.read_text("utf-8", "surrogateescape") for path in (said, complained))
    return Run(out, returncode, rows, *texts, peak_kb, seconds, orphans)


@cache
def _warm() -> WarmStart:
    """What commands of this process are forked from, as long as tests run."""
    paths = {"PYTHONPATH": os.pathsep.join(PATHS), "OMP_NUM_THREADS": "1"}
    warm = WarmStart(_without_privilege(), {**os.environ, **paths})
    atexit.register(warm.close)
    return warm


def _without_privilege() -> list[str]:
    """Root reads what it may not read; a user does not, and users are who runs this."""
    if os.geteuid() or not shutil.which("setpriv"):
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[int | None, int]:
    """Its exit status, None where it was killed for hanging, and its most memory in kB."""
    until = time.monotonic() + timeout_s
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_maxrss
        if time.monotonic() > until:
            os.killpg(process.pid, signal.SIGKILL)
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = -signal.SIGKILL
            return None, usage.ru_maxrss
        time.sleep(0.05)


def _orphans(session: int) -> tuple[str, ...]:
    """Command lines of what is left of a session a while after its leader ended."""
    until = time.monotonic() + ENDED_WITHIN_S
    while (left := tuple(_in_session(session))) and time.monotonic() < until:
        time.sleep(0.05)
    for number, _ in left:
        os.kill(number, signal.SIGKILL)
    return tuple(line for _, line in left)


def _in_session(session: int) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    yield int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")
            except (OSError, ValueError):
                continue


def write_manifest(path: Path, specimens: Sequence[Specimen]) -> Path:
    """A manifest of the specimens that are asked for with more than their path."""
    columns = ["path", "slide_id", "mpp", "sha256"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows({"path": str(s.path), **s.columns} for s in specimens)
    return path


def run_batch(
    here: Path,
    specimens: Sequence[Specimen],
    good: Sequence[Path],
    *,
    growing: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Run:
    """All specimens and the good slides in one run; `growing` grows meanwhile."""
    plain = [s.path for s in specimens if not s.columns]
    stated = [s for s in specimens if s.columns]
    manifest = [write_manifest(here / "manifest.csv", stated)] if stated else []
    with _appending(growing) if growing else nullcontext():
        return run_cli(
            [*manifest, *plain, *good], here / "results", timeout_s=240, environment=environment
        )


@contextmanager
def _appending(path: Path) -> Iterator[None]:
    """Add a byte to a file again and again, as a slow copy does."""
    ended = threading.Event()

    def append() -> None:
        while not ended.wait(0.02):
            with path.open("ab") as file:
                file.write(b"\0")

    thread = threading.Thread(target=append)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def left_visible(out: Path) -> list[str]:
    """What lies in an output folder that is neither a whole result nor a list of them."""
    ours = {"worklist.csv", "worklist.json", "run"}
    return sorted(
        path.name
        for path in out.iterdir()
        if path.name not in ours and not (path.is_dir() and verified_key(path))
    )


def make_once(
    folder: Path, name: str, make: Callable[[Path], Made], *, wait: bool = True
) -> Made | None:
    """What `make` gives, made by one process for all that test at the same time.

    None where another makes it just now and it is not waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{name}.pickle"
    with (folder / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if not kept.exists():
            here = folder / name
            shutil.rmtree(here, ignore_errors=True)  # of one who was killed at it
            here.mkdir()
            kept.write_bytes(pickle.dumps(make(here)))
    made: Made = pickle.loads(kept.read_bytes())
    return made


def make_all(
    folder: Path, makers: dict[str, Callable[[Path], Made]], *, backwards: bool
) -> dict[str, Made]:
    """Everything in `makers`; another process that comes from the other end makes the rest."""
    order = sorted(makers, reverse=backwards)
    for name in order:
        make_once(folder, name, makers[name], wait=False)
    return {name: one(make_once(folder, name, makers[name])) for name in order}


def one(made: Made | None) -> Made:
    """What was made, which was waited for."""
    assert made is not None
    return made
