"""Spoilt slides of many formats through the whole slide worker, and what came of each.

    python benchmarks/fuzz.py [--json] [--mutants 1000] [--seed 1] [--only N] [--keep DIR]

Each mutant is a small sound slide (SVS of JPEG and JPEG 2000, plain TIFF in five codings, OME-TIFF,
BigTIFF, NDPI, MIRAX, DICOM, plain images) with one to three things wrong in its numbers, text, data
or length. A station plans, reads and publishes it, with its decoders in children. It must come to a
result that verifies or to a failure with a code that is not E_INTERNAL, within 30 s, and without a
path in any message, a file left outside staging and output, or memory that grows by over 100 MB.
What does not is a violation: it is told on stderr with how to make it again (`--seed S --only N`)
and kept in the folder of `--keep`. Ends with status 1 where there was one.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import os
import shutil
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil
from torture.mutations import mutate
from torture.seeds import Seed, make_seeds
from torture.slide_worker import Work, few_pictures, make_work, tiny_model, triage_slide

from slidetriage.workflows.fingerprints import fingerprint
from slidetriage.workflows.manifest import verified_key
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import find_requests
from slidetriage.workflows.station import Station
from slidetriage.workflows.steps import SlideFailure, SlideResult

STALL_S, LONGEST_S = 10, 30.0
PIXELS_PER_S = 2e6
"""A slide that says it is large, and is read, may take as long as a large one on a busy machine."""

GROWTH_BYTES = 100 << 20
SETTLED_AFTER = 50
"""Mutants after which memory must not grow any more; before that, libraries are loaded."""

SLOW_S = 5.0
"""A mutant that takes longer is told of, as is one that kills its decoders."""

STATED_MPP = 2.0


@dataclass
class Tally:
    """What came of the mutants so far."""

    codes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    served: int = 0
    done: int = 0
    slowest_s: float = 0.0
    settled: int = 0
    growth: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, name: str, outcome: SlideResult | SlideFailure | None, seconds: float) -> None:
        """Count one mutant, and look at how much memory this process has."""
        with self.lock:
            self.done += 1
            self.slowest_s = max(self.slowest_s, seconds)
            if isinstance(outcome, SlideResult):
                self.served += 1
            elif outcome is not None:
                self.codes[outcome.code] += 1
            if self.done % SETTLED_AFTER == 0:
                gc.collect()
                resident = psutil.Process().memory_info().rss
                self.settled = self.settled or resident
                self.growth = max(self.growth, resident - self.settled)


class Fuzzer:
    """Makes mutants, has each triaged, and judges what came of it."""

    def __init__(self, work: Work, seed: int, keep: Path | None) -> None:
        self._work, self._seed, self._keep = work, seed, keep
        (work.root / "seeds").mkdir()
        self._seeds = make_seeds(work.root / "seeds")
        self.settings = Settings(model=str(tiny_model(work.root / "model")), stall_s=STALL_S)
        self.station = Station(self.settings, work.out)
        self.station.load()
        self._beside = {path.name for path in work.root.iterdir()}
        self.tally = Tally()

    def try_sound(self) -> None:
        """Every seed as it is must be served, or the fuzzing would show nothing."""
        for number, seed in enumerate(self._seeds):
            name = f"sound-{number}"
            stated = seed.stated_mpp
            outcome, problems, _ = self._triage(name, dict(seed.files), seed, stated=stated)
            if problems or not isinstance(outcome, SlideResult):
                raise SystemExit(f"the seed {seed.name} is not served: {outcome} {problems}")

    def try_mutant(self, number: int) -> None:
        """One mutant from its making to its judgement."""
        random = Random(f"{self._seed}:{number}")
        seed = random.choice(self._seeds)
        files, said = mutate(seed, self._seeds, random)
        stated = seed.stated_mpp or random.random() < 0.5
        begin = time.monotonic()
        outcome, problems, pixels = self._triage(str(number), files, seed, stated=stated)
        seconds = time.monotonic() - begin
        if seconds > LONGEST_S + pixels / PIXELS_PER_S:
            problems.append(f"took {seconds:.0f} s")
        self.tally.take(str(number), outcome, seconds)
        crashed = isinstance(outcome, SlideFailure) and outcome.code == "E_CRASH"
        if crashed or seconds > SLOW_S:
            what = "crash" if crashed else "slow"
            print(f"{what}: {seconds:.1f} s: --only {number}: {outcome}"[:300], file=sys.stderr)
        if problems:
            self._tell(number, f"{seed.name}: {'; '.join(said)}: {'; '.join(problems)}", files)

    def _triage(
        self, name: str, files: dict[str, bytes], seed: Seed, *, stated: bool
    ) -> tuple[SlideResult | SlideFailure | None, list[str], int]:
        """What came of a slide, what of that may not be, and the pixels it says it has."""
        here, staging = self._work.slides / name, self._work.staging / name
        for path, content in files.items():
            (here / path).parent.mkdir(parents=True, exist_ok=True)
            (here / path).write_bytes(content)
        own = here / next(iter(seed.files))
        outcome, problems, pixels = None, [], 0
        try:
            (request,) = find_requests([own], mpp=STATED_MPP if stated else None)
            fingerprint(request, "model", self.settings)
            outcome, pixels = triage_slide(self.station, request, staging, self.settings)
            problems = self._judge(outcome)
        except Exception as error:  # noqa: BLE001 - whatever comes through is what is looked for
            problems = [f"raised {type(error).__name__}: {error}"]
        left = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
        if left != set(files):
            problems.append(f"beside the slide lie {left ^ set(files)}")
        problems += self._strays()
        shutil.rmtree(here)
        shutil.rmtree(staging, ignore_errors=True)
        return outcome, problems, pixels

    def _judge(self, outcome: SlideResult | SlideFailure) -> list[str]:
        canary = self._work.slides.name
        if isinstance(outcome, SlideFailure):
            told, found = outcome.message, []
            if not outcome.code.startswith("E_") or outcome.code == "E_INTERNAL":
                found.append(f"{outcome.code}: {outcome.message}")
        else:
            told, found = " ".join((*outcome.warnings, *outcome.reasons)), []
            folder = self._work.out / outcome.directory
            if verified_key(folder) is None:
                found.append("its result does not verify")
            if outcome.score is not None and not 0 <= outcome.score <= 1:
                found.append(f"its score is {outcome.score}")
            if not math.isfinite(outcome.tissue_mm2) or not math.isfinite(outcome.flagged_mm2):
                found.append("an area is not finite")
            for path in folder.glob("*.*json"):
                told += path.read_text()
            shutil.rmtree(folder)
        if canary in told or str(self._work.root) in told:
            found.append(f"a path is told: {told[:300]}")
        return found

    def _strays(self) -> list[str]:
        """Files that lie where none may."""
        work = self._work
        found = [path.name for path in work.root.iterdir() if path.name not in self._beside]
        for folder in (work.temporary, work.current):
            found += [f"{folder.name}/{path.name}" for path in folder.iterdir()]
        return [f"left behind: {', '.join(found)}"] if found else []

    def _tell(self, number: int, what: str, files: dict[str, bytes]) -> None:
        said = f"--seed {self._seed} --only {number}: {what}"
        self.tally.violations.append(said)
        print(f"violation {said}", file=sys.stderr, flush=True)
        if self._keep is not None:
            folder = self._keep / f"{self._seed}-{number}"
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            (folder / "what.txt").write_text(f"{said}\n")


def fuzz(args: argparse.Namespace) -> dict[str, object]:
    """Try all mutants."""
    keep = args.keep.absolute() if args.keep else None
    with make_work() as work, few_pictures():
        fuzzer = Fuzzer(work, args.seed, keep)
        with closing(fuzzer.station):
            fuzzer.try_sound()
            begin = time.monotonic()
            numbers = range(args.mutants) if args.only is None else args.only
            with ThreadPoolExecutor(args.threads) as pool:
                for _ in pool.map(fuzzer.try_mutant, numbers):
                    show(fuzzer.tally)
            seconds = time.monotonic() - begin
    tally = fuzzer.tally
    if tally.growth > GROWTH_BYTES:
        tally.violations.append(f"memory grew by {tally.growth >> 20} MB")
    crashed = tally.codes["E_CRASH"]
    return {
        "mutants": tally.done,
        "violations": len(tally.violations),
        "crashed": crashed,
        "rejected": tally.codes.total() - crashed,
        "served": tally.served,
        "seed": args.seed,
        "slowest_s": round(tally.slowest_s, 1),
        "growth_mb": tally.growth >> 20,
        "mutants_per_s": round(tally.done / seconds, 1),
        "by_code": dict(tally.codes.most_common()),
        "found": tally.violations[:20],
    }


def show(tally: Tally) -> None:
    """How far it is, every 500 mutants."""
    if tally.done % 500 == 0:
        print(f"{tally.done} mutants, {len(tally.violations)} violations", file=sys.stderr)


def main() -> None:
    """Try, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", default=None, help="numbers of mutants")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--keep", type=Path, default=None, help="folder for violating mutants")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"seed {args.seed}", file=sys.stderr)
    figures = fuzz(args)
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            if isinstance(value, dict):
                print(name)
                for code, count in value.items():
                    print(f"  {code:20} {count}")
            else:
                print(f"{name:14} {value}")
    if figures["violations"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
