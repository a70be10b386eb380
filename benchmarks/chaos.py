"""Runs that are killed at random, and what they leave once they were resumed.

    python benchmarks/chaos.py [--json] [--trials 8] [--seed 1] [--points 12] [--rounds 1]
        [--chained] [--doubles 2] [--serial] [--only N] [--keep DIR]

A batch of five small painted slides and a damaged one is run undisturbed: the reference. In each
trial the command line is started in a session of its own; one to three times a process of it,
chosen at random, gets a signal at a random time, and the run is resumed where it ended; then it is
resumed until it ends as the reference did. Every file of the output folder must be equal, the log
valid, nothing left over, no process outlive its run, and no slide that had ended be done again.
Four of five trials take the serial engine, forked from a process that has imported everything and
without pictures, so that most kills hit work; the fifth takes Dask, started cold.
Then the same with deaths at every crash point before and after a sync, a rename or a write of the
records (`--rounds` times, in other ways), and with two command lines at once into one folder.
Ends with status 1 where anything was not as it must be.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from torture.commands import Command, choose_target, draw_signal, orphans, send, warm_up
from torture.figures import Figures
from torture.slide_worker import MEMORY, tiny_model
from torture.trees import Left, differences, examine

from faults.painted import aperio, paint
from faults.tiff_parts import write_parts
from slidetriage.workflows.ledger.audit import read_audit
from slidetriage.workflows.ledger.places import audit_path
from trees import tree

POINTS = (
    "claim.locked", "claim.staged", "registry.written", "registry.synced", "audit.written",
    "audit.synced", "whole.written", "whole.synced", "whole.replaced", "publish.synced",
    "publish.renamed", "publish.done",
)  # fmt: skip

EARLIEST, LATEST = 0.02, 0.95
MOST_KILLS = 3
DASK_EVERY = 5
"""Trials of which one takes Dask: it starts in many seconds, in which kills hit no work."""

RESUMES = 4
LOCKED = 75
ASKED = Path("run", "private", "run.json")
SUSPECT = ("decoder", "nursery")
"""Killed at most once in a trial: a slide at which decoders die again and again is given up."""


class Chaos:
    """The batch, its reference, and the trials."""

    def __init__(self, root: Path, seed: int, keep: Path | None, *, dask: bool) -> None:
        self.root, self.seed, self.keep, self.dask = root, seed, keep, dask
        self.figures = Figures(seed)
        slides = root / "slides"
        slides.mkdir()
        for number in range(5):
            part = paint(number)[200:648, 300:940]
            write_parts(slides / f"slide-{number}.svs", aperio(part.copy()))
        whole = (slides / "slide-0.svs").read_bytes()
        (slides / "damaged.svs").write_bytes(whole[: len(whole) // 2])
        # Several batches of tiles a slide, so that kills hit slides half read.
        self.run = ["run", slides, "--model", tiny_model(root / "model"), "--overlap", "0.5"]
        warm_up()
        self.references: dict[bool, dict[str, str]] = {}
        self.code = 0
        self.took: dict[bool, float] = {}
        self.worked: dict[bool, float] = {}

    def measure(self, *, cold: bool) -> None:
        """An undisturbed run: what it leaves, how it ends, and how long it takes."""
        out = self.root / f"reference-{cold}"
        begin = time.monotonic()
        command, working = self.begin(out, cold=cold), begin
        while not audit_path(out).exists() and command.poll() is None:
            working = time.monotonic()
            time.sleep(0.005)
        self.code = command.wait() or 0
        self.took[cold] = time.monotonic() - begin
        self.worked[cold] = time.monotonic() - working
        found = self.references[cold] = tree(out)
        if self.code != 3 or differences(out, found):
            raise SystemExit(f"undisturbed: {self.code}\n{command.said.read_text()[-3000:]}")

    def begin(
        self,
        out: Path,
        *,
        crash_at: str = "",
        cold: bool = False,
        more: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> Command:
        """Start the run, with `more` options, or resume it where there is one to resume."""
        said = out.with_name(f"{out.name}.said")
        if (out / ASKED).exists():
            arguments = ["resume", out]
        else:
            arguments = [*self.run, "--out", out, "--engine", "dask" if cold else "serial", *more]
        return Command(arguments, said, crash_at=crash_at, cold=cold, variables=variables)

    def try_kills(self, number: int) -> None:
        """A run that is killed at random times."""
        random = Random(f"{self.seed}:{number}")
        cold, out = number % DASK_EVERY == 2 and self.dask, self.root / f"trial-{number}"
        sessions: list[int] = []
        suspects = 0
        killed: list[str] = []
        command = self.begin(out, cold=cold)
        begun = time.monotonic()
        sessions.append(command.pid)
        for _ in range(random.randint(1, MOST_KILLS)):
            if command.poll() is not None:
                command, begun = self.begin(out, cold=cold), time.monotonic()
                sessions.append(command.pid)
            self.wait_for_moment(out, command, random, begun, cold=cold)
            spared = SUSPECT if suspects else ()
            kind, process = choose_target(command.pid, random, spared=spared)
            what = draw_signal(random)
            if command.poll() is not None:
                break  # it was done before
            suspects += kind in SUSPECT
            send(process, what)
            after = time.monotonic() - begun
            killed.append(f"{signal.Signals(what).name} to {kind} after {after:.2f} s")
            self.figures.by_target[kind] += 1
            self.figures.by_signal[signal.Signals(what).name] += 1
            if what == signal.SIGSTOP:
                time.sleep(1)
                send(process, signal.SIGCONT)
            else:
                time.sleep(0.05)
        self.figures.trials += 1
        self.figures.kills += len(killed)
        told = f"--only {number} ({'dask' if cold else 'serial'}; {', '.join(killed)})"
        same, left = self.settle(out, command, sessions, told, cold=cold)
        self.figures.identical += same
        self.figures.redone += left.redone
        self.figures.most_redone = max(self.figures.most_redone, left.redone / max(1, len(killed)))

    def wait_for_moment(
        self, out: Path, command: Command, random: Random, begun: float, *, cold: bool
    ) -> None:
        """Until any time of the run, or as often any time after work has begun."""
        log, seconds = audit_path(out), random.uniform(EARLIEST, LATEST)
        if random.random() < 0.5:
            until = begun + seconds * self.took[cold]
        else:
            size = log.stat().st_size if log.exists() else 0
            latest = begun + self.took[cold]
            while time.monotonic() < latest and command.poll() is None:
                if log.exists() and log.stat().st_size > size:
                    break
                time.sleep(0.005)
            until = time.monotonic() + seconds * self.worked[cold]
        while command.poll() is None and time.monotonic() < until:
            time.sleep(0.002)

    def try_point(self, point: str, way: int) -> None:
        """A run that dies at a crash point: at once, at a later passing, or twice in a row."""
        out = self.root / f"point-{point}-{way}"
        random = Random(f"{self.seed}:{point}:{way}")
        nth = 1 if way != 1 else random.randint(2, 6)
        sessions, codes = [], []
        for _ in range(2 if way == 2 else 1):
            command = self.begin(out, crash_at=f"{point}#{nth}")
            sessions.append(command.pid)
            codes.append(command.wait())
        if codes[0] != -signal.SIGKILL and nth > 1:  # it is not passed so often
            command = self.begin(out, crash_at=f"{point}#1")
            sessions.append(command.pid)
            codes.append(command.wait())
        elif codes[0] != -signal.SIGKILL:
            self.figures.wrong.append(f"crash point {point}#{nth} is not passed: {codes}")
        self.figures.tried["point"] += 1
        told = f"crash point {point}#{nth}, way {way}"
        same, _ = self.settle(out, command, sessions, told)
        self.figures.same["point"] += same

    def try_chain(self) -> None:
        """One run that dies at one crash point after the other, each time resumed."""
        out, sessions = self.root / "chain", []
        # At the last points a slide is published each time, so they come while there are slides.
        for point in reversed(POINTS):
            command = self.begin(out, crash_at=f"{point}#1")
            sessions.append(command.pid)
            code = command.wait()
            if code != -signal.SIGKILL:
                self.figures.wrong.append(f"crash point {point} is not passed: {code}")
        same, _ = self.settle(out, command, sessions, f"crash points {', '.join(POINTS)}")
        self.figures.tried["point"] += len(POINTS)
        self.figures.same["point"] += len(POINTS) * same

    def try_double(self, number: int) -> None:
        """Two command lines at once into one folder."""
        out, random = self.root / f"double-{number}", Random(f"{self.seed}:double:{number}")
        said = self.root / f"double-{number}-second.said"
        first = self.begin(out)
        time.sleep(random.choice((0, 0, random.random() * self.took[False])))
        arguments = [*self.run, "--out", out, "--engine", "serial"]
        second = Command(arguments, said)
        codes = [first.wait(), second.wait()]
        self.figures.tried["double"] += 1
        self.figures.refused += LOCKED in codes
        told = f"double run {number} ended with {codes}"
        if any(code not in (self.code, LOCKED) for code in codes) or codes == [LOCKED] * 2:
            self.figures.wrong.append(f"{told}: {said.read_text()[-500:]}")
            return
        same, _ = self.settle(out, first, [first.pid, second.pid], told)
        self.figures.same["double"] += same

    def settle(
        self, out: Path, command: Command, sessions: list[int], told: str, *, cold: bool = False
    ) -> tuple[bool, Left]:
        """Resume until it ends as the reference did; whether all is as it must be."""
        problems = []
        code = command.wait()
        codes = [code]
        while (code != self.code or given_up(out)) and len(codes) <= RESUMES:
            if code is None:
                problems.append("hangs")
            command = self.begin(out, cold=cold)
            sessions.append(command.pid)
            code = command.wait()
            codes.append(code)
        if code != self.code:
            problems.append(f"ends with {codes}")
        problems += [f"orphan {name}" for name in orphans(sessions)]
        left = examine(out, self.references[cold])
        problems += left.problems
        figures = self.figures
        figures.audits += left.log_valid
        figures.recomputed += left.recomputed
        said = out.with_name(f"{out.name}.said")
        if problems:
            what = f"--seed {self.seed} {told}, codes {codes}: {'; '.join(problems)[:800]}"
            figures.wrong.append(what)
            last = said.read_text()[-1500:] if said.exists() else ""
            print(f"wrong: {what}\n{last}", file=sys.stderr, flush=True)
            if self.keep is not None:
                shutil.copytree(out, self.keep / out.name, dirs_exist_ok=True)
        shutil.rmtree(out, ignore_errors=True)
        said.unlink(missing_ok=True)
        return not problems, left


def given_up(out: Path) -> bool:
    """Whether the last run said that it could not go on, with the status of one that lacks slides.

    So it ends where its workers were killed again and again.
    """
    log = audit_path(out)
    events = list(read_audit(log)) if log.exists() else []
    return not events or events[-1]["event"] != "run_ended" or events[-1]["how"] != "complete"


def torture(args: argparse.Namespace, root: Path) -> dict[str, object]:
    """All trials."""
    begin = time.monotonic()
    chaos = Chaos(root, args.seed, args.keep, dask=not args.serial)
    numbers = args.only if args.only is not None else range(args.trials)
    chaos.measure(cold=False)
    if chaos.dask and any(number % DASK_EVERY == 2 for number in numbers):
        chaos.measure(cold=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        tried = [pool.submit(chaos.try_kills, number) for number in numbers]
        if args.only is None:
            if args.chained:
                tried.append(pool.submit(chaos.try_chain))
            for way in range(0 if args.chained else args.rounds):
                tried += [pool.submit(chaos.try_point, at, way) for at in POINTS[: args.points]]
            tried += [pool.submit(chaos.try_double, number) for number in range(args.doubles)]
        for each in tried:
            each.result()
    return chaos.figures.record(time.monotonic() - begin)


def main() -> None:
    """Try, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=len(POINTS), help="how many crash points")
    parser.add_argument("--rounds", type=int, default=1, choices=(1, 2, 3), help="of crash points")
    parser.add_argument("--chained", action="store_true", help="all crash points in one folder")
    parser.add_argument("--doubles", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="+", default=None, help="numbers of trials")
    parser.add_argument("--serial", action="store_true", help="never take Dask")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--keep", type=Path, default=None, help="folder for what went wrong")
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr)
    root = Path(tempfile.mkdtemp(prefix="chaos-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        figures = torture(args, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:18} {value}")
    if figures["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
