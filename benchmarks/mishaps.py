"""What happens in a night: full disks, Ctrl-C, a share that stalls, a clock that jumps.

    python benchmarks/mishaps.py [--disks 10] [--interrupts 20] [--stalls 2] [--clocks 5]
        [--seed 1] [--json]

A batch of five small painted slides and a damaged one (that of `chaos.py`) is run undisturbed: the
reference. Then in every trial something happens, the run is resumed where it ended, and all that it
leaves must be equal to the reference, the log valid, no process and nothing half-made left.

disks       the output folder is a disk of which a random part is free: the run ends with status 74
            and says why; what is published is whole; it goes on when there is room
interrupts  SIGINT to the command at a random time: it ends within 10 s, with status 130
stalls      a read takes 60 s: with --stall 30, the default, the decoder is replaced, with 90 it is
            waited for
clocks      the clock jumps to and fro by up to two years while the run lasts, and while it resumes

Disks need the right to mount, and clocks `faketime` (Debian: faketime): what is not there is said.
Ends with status 1 where anything was not as it must be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from chaos import Chaos
from torture.commands import Command, send
from torture.slide_worker import MEMORY

from trees import tree

HOOKS = Path(__file__).parents[1] / "tests" / "faults" / "hooks"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
DISK_BYTES = 32 << 20
FULL, INTERRUPTED = 74, 130
ENDS_WITHIN_S = 10.0
FAKED_HANGS_AFTER_S = 600.0
"""libfaketime reads its file at each call, stat among them: imports alone take a minute."""

JUMPS = ("-2y", "-3d", "-1h", "+0", "+1h", "+3d", "+2y")


class Mishaps:
    """The trials, and what came of them."""

    def __init__(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.tried: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.slowest_s = 0.0
        self.large_enough = 0

    def try_all(self, kind: str, trial: Callable[[int, Random], list[str]], times: int) -> None:
        """Have a mishap happen so many times."""
        for number in range(times):
            random = Random(f"{self.chaos.seed}:{kind}:{number}")
            try:
                wrong = trial(number, random)
            except NotHere as reason:
                self.skipped[kind] = str(reason)
                return
            self.tried[kind] += 1
            self.passed[kind] += not wrong
            for what in wrong:
                self.chaos.figures.wrong.append(f"{kind} {number}: {what}")
                print(f"wrong: {kind} {number}: {what}", file=sys.stderr, flush=True)

    def fill_disk(self, number: int, random: Random) -> list[str]:
        """A run on a disk that is nearly full."""
        out = self.chaos.root / f"disk-{number}"
        largest = sum((self.chaos.root / "reference-False" / name).stat().st_size
                      for name in self.chaos.references[False])  # fmt: skip
        wrong: list[str] = []
        with mounted(out):
            ballast = out / "ballast"
            free = int(largest * random.uniform(0.0, 1.1))
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, DISK_BYTES - free - (64 << 10))
            command = self.chaos.begin(out)
            code = command.wait()
            said = command.said.read_text()
            fitted = code == self.chaos.code
            if code not in (FULL, self.chaos.code):
                wrong.append(f"ends with {code}: {said[-500:]}")
            if not fitted and "No space left" not in said:
                wrong.append(f"does not say why: {said[-500:]}")
            if "Traceback" in said:
                wrong.append(f"shows a traceback: {said[-500:]}")
            wrong += self.half_made(out)
            ballast.unlink()
            if fitted:
                self.large_enough += 1
            else:
                command = self.chaos.begin(out)
            return wrong + self.settled(out, command, f"disk with {free} bytes free")

    def half_made(self, out: Path) -> list[str]:
        """Slides' folders that are there and not as in the reference."""
        whole = self.chaos.references[False]
        folders = {name.partition("/")[0] for name in whole if "/" in name}
        there = tree(out)
        return [
            f"{folder} is there but not whole"
            for folder in sorted(folders)
            if (out / folder).exists()
            and {k: v for k, v in there.items() if k.startswith(f"{folder}/")}
            != {k: v for k, v in whole.items() if k.startswith(f"{folder}/")}
        ]

    def interrupt(self, number: int, random: Random) -> list[str]:
        """Ctrl-C at any time; one run in five is on Dask."""
        cold, out = number % 5 == 2, self.chaos.root / f"interrupt-{number}"
        command = self.chaos.begin(out, cold=cold)
        begun = time.monotonic()
        self.chaos.wait_for_moment(out, command, random, begun, cold=cold)
        asked = time.monotonic()
        early = command.poll() is not None
        send(command.pid, signal.SIGINT)
        code = command.wait(ENDS_WITHIN_S)
        took = time.monotonic() - asked
        self.slowest_s = max(self.slowest_s, took)
        wrong = []
        if code is None:
            wrong.append(f"does not end within {ENDS_WITHIN_S:.0f} s")
        elif code not in (INTERRUPTED, self.chaos.code, -signal.SIGINT):
            wrong.append(f"ends with {code}: {command.said.read_text()[-500:]}")
        elif code == -signal.SIGINT and asked - begun > 1.0:
            wrong.append("is ended by the signal rather than by itself")
        if "Traceback" in command.said.read_text() and code != -signal.SIGINT:
            wrong.append(f"shows a traceback: {command.said.read_text()[-500:]}")
        if not early and code != self.chaos.code:
            command = self.chaos.begin(out, cold=cold)
        return wrong + self.settled(out, command, f"interrupt after {asked - begun:.2f} s", cold)

    def stall(self, number: int, random: Random) -> list[str]:
        """A read that takes a minute, amid the tiles of a slide."""
        out, mark = self.chaos.root / f"stall-{number}", self.chaos.root / f"stall-{number}.mark"
        limit = ("30", "90")[number % 2]
        variables = {
            "PYTHONPATH": str(HOOKS), "FAULTS_FILE": str(self.chaos.root / "slides/slide-1.svs"),
            "FAULTS_DO": "stall", "FAULTS_AT": str(random.randint(1, 9)), "FAULTS_IN": "read_tiles",
            "FAULTS_MARK": str(mark), "FAULTS_OTHER": "",
        }  # fmt: skip
        command = self.chaos.begin(out, cold=True, more=["--stall", limit], variables=variables)
        code = command.wait(300)
        wrong = [] if mark.exists() else ["the read never stalled"]
        if code != self.chaos.code:
            wrong.append(f"ends with {code}: {command.said.read_text()[-500:]}")
        return wrong + self.settled(out, command, f"stall with a limit of {limit} s", cold=True)

    def jump(self, number: int, random: Random) -> list[str]:
        """A clock that jumps while a run lasts, is interrupted, and goes on."""
        if not FAKETIME.exists():
            raise NotHere("faketime is not installed: apt-get install faketime")
        out, offset = self.chaos.root / f"clock-{number}", self.chaos.root / f"clock-{number}.rc"
        variables = {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(HOOKS),
        }  # fmt: skip
        with jumping(offset, random) as jumps:
            command = self.chaos.begin(out, cold=True, variables=variables)
            self.chaos.wait_for_moment(out, command, random, time.monotonic(), cold=True)
            if command.poll() is None:
                send(command.pid, signal.SIGINT)
            first = command.wait(FAKED_HANGS_AFTER_S)
            command = self.chaos.begin(out, cold=True, variables=variables)
            code = command.wait(FAKED_HANGS_AFTER_S)
        wrong = []
        if code != self.chaos.code:
            last = command.said.read_text(errors="replace")[-2000:]
            wrong = [f"ends with {first}, then {code}: {last}"]
        return wrong + self.settled(out, command, f"{len(jumps)} jumps of the clock", cold=True)

    def settled(self, out: Path, command: Command, told: str, cold: bool = False) -> list[str]:
        """Resume until it ends as the reference did; what was not as it must be."""
        wrong = self.chaos.figures.wrong
        before = len(wrong)
        self.chaos.settle(out, command, [command.pid], told, cold=cold)
        found, wrong[before:] = wrong[before:], []
        return found


class NotHere(Exception):
    """What a trial needs is not on this machine."""


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A small disk at a new folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def jumping(offset: Path, random: Random) -> Iterator[list[str]]:
    """The clock of those who read the file jumps a few times a second while this lasts."""
    jumps: list[str] = []
    ended = threading.Event()

    def jump() -> None:
        while True:
            jumps.append(random.choice(JUMPS))
            whole = offset.with_name(f"{offset.name}.new")
            whole.write_text(f"{jumps[-1]}\n")
            whole.replace(offset)
            if ended.wait(random.uniform(0.1, 0.6)):
                return

    offset.write_text("+0\n")
    thread = threading.Thread(target=jump)
    thread.start()
    try:
        yield jumps
    finally:
        ended.set()
        thread.join()


def main() -> None:
    """Try, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--disks", type=int, default=10)
    parser.add_argument("--interrupts", type=int, default=20)
    parser.add_argument("--stalls", type=int, default=2)
    parser.add_argument("--clocks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr)
    root = Path(tempfile.mkdtemp(prefix="mishaps-", dir=MEMORY if MEMORY.is_dir() else None))
    begin = time.monotonic()
    try:
        chaos = Chaos(root, args.seed, None, dask=True)
        chaos.measure(cold=False)
        chaos.measure(cold=True)
        trials = Mishaps(chaos)
        trials.try_all("disks", trials.fill_disk, args.disks)
        trials.try_all("interrupts", trials.interrupt, args.interrupts)
        trials.try_all("stalls", trials.stall, args.stalls)
        trials.try_all("clocks", trials.jump, args.clocks)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    figures: dict[str, object] = {
        kind: {"tried": times, "passed": trials.passed[kind]}
        for kind, times in trials.tried.items()
    }
    figures["disks_large_enough"] = trials.large_enough
    figures["slowest_interrupt_s"] = round(trials.slowest_s, 2)
    figures["skipped"] = trials.skipped
    figures["seed"] = args.seed
    figures["seconds"] = round(time.monotonic() - begin)
    figures["wrong"] = chaos.figures.wrong[:20]
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:20} {value}")
    if chaos.figures.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
