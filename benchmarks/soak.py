"""Batch after batch in one process, some slides hostile: what grows, and what slows down.

    python benchmarks/soak.py [--json] [--minutes 2] [--batch 20] [--seed 1]

Every batch is a run of the serial engine over small sound slides and one hostile slide in twenty
(mutants as `fuzz.py` makes them), into a folder of its own that is removed. From the end of the
first quarter of the time on: slopes of memory and of the children's memory in MB per hour, handles,
threads and temporary files gained, and slides/s in the last half against the half before. A state
is unexplained where a sound slide is not DONE, or a hostile one fails without a code or with
E_INTERNAL. Ends with status 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from load import make_slides
from torture.mutations import mutate
from torture.seeds import Seed, make_seeds
from torture.slide_worker import Work, make_work, tiny_model
from torture.watching import Sample, Watch, count_files, sample, slope

from slidetriage import Resources, Settings, triage
from slidetriage.workflows.steps import SlideFailure
from slidetriage.workflows.worklist import Row

HOSTILE_OF = 20
STATED_MPP = 4.0
STALL_S = 10


@dataclass
class Soak:
    """What was held after each batch, and what was odd."""

    held: list[Sample] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    slides: list[int] = field(default_factory=list)
    hostile: int = 0
    unexplained: list[str] = field(default_factory=list)


def run_batch(work: Work, sound: list[Path], hostile: list[Path], settings: Settings) -> Watch:
    """One run, into a folder that is removed."""
    watch = Watch(every=1 << 30)
    out = work.out / "results"
    triage(
        [*sound, *hostile], out, settings=settings, mpp=STATED_MPP, resources=Resources("serial"),
        watcher=watch,
    )  # fmt: skip
    shutil.rmtree(out)
    return watch


def make_hostile(folder: Path, seeds: list[Seed], random: Random, count: int) -> list[Path]:
    """Mutants, each in a folder of its own."""
    found = []
    for number in range(count):
        seed = random.choice(seeds)
        files, _ = mutate(seed, seeds, random)
        for name, content in files.items():
            path = folder / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        found.append(folder / str(number) / next(iter(seed.files)))
    return found


def find_odd(row: Row, *, sound: bool) -> str | None:
    """What is unexplained about a slide's outcome."""
    outcome = row.outcome
    if not isinstance(outcome, SlideFailure):
        return None if outcome.state == "DONE" or not sound else f"sound, but {outcome.state}"
    if sound or row.state == "PENDING" or outcome.code == "E_INTERNAL":
        return f"{row.state} {outcome.code}: {outcome.message}"
    return None


def soak(work: Work, minutes: float, batch: int, seed: int) -> Soak:
    """Run batches for so many minutes."""
    random, done = Random(seed), Soak()
    settings = Settings(model=str(tiny_model(work.root / "model")), stall_s=STALL_S)
    (work.root / "seeds").mkdir()
    seeds = make_seeds(work.root / "seeds")
    many = max(1, round(batch / HOSTILE_OF))
    sound = make_slides(work.slides / "sound", batch - many, seed)
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end or len(done.held) < 4:
        hostile = make_hostile(work.slides / "hostile", seeds, random, many)
        watch = run_batch(work, sound, hostile, settings)
        shutil.rmtree(work.slides / "hostile")
        for row in watch.rows:
            odd = find_odd(row, sound=row.request.path in sound)
            if odd is not None:
                done.unexplained.append(odd)
                print(f"unexplained, batch {len(done.held)}: {odd}", file=sys.stderr)
        done.hostile += many
        done.slides.append(len(watch.rows))
        done.held.append(sample())
        done.files.append(count_files(work.temporary) + count_files(work.current))
    return done


def summarise(done: Soak, seconds: float) -> dict[str, object]:
    """The figures, from the end of the first quarter on."""
    start = len(done.held) // 4
    held, middle = done.held[start:], (start + len(done.held)) // 2

    def rate(first: int, last: int) -> float:
        between = done.held[last].seconds - done.held[first].seconds
        return sum(done.slides[first + 1 : last + 1]) / between

    last, before = rate(middle, len(done.held) - 1), rate(start, middle)
    hours = [(one.seconds / 3600, one) for one in held]
    return {
        "batches": len(done.held),
        "slides": sum(done.slides),
        "hostile": done.hostile,
        "rss_slope_mb_per_h": round(slope([(at, one.rss_mb) for at, one in hours]), 1),
        "rss_growth_mb": round(held[-1].rss_mb - held[0].rss_mb, 1),
        "children_mb": round(held[-1].children_mb, 1),
        "fd_delta": held[-1].handles - held[0].handles,
        "thread_delta": held[-1].threads - held[0].threads,
        "temporary_files": done.files[-1] - done.files[start],
        "throughput_ratio": round(last / before, 3),
        "unexplained": len(done.unexplained),
        "found": done.unexplained[:20],
        "seconds": round(seconds),
    }


def main() -> None:
    """Soak, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--batch", type=int, default=20, help="slides of one run")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    os.environ["PYTHONWARNINGS"] = "ignore"  # of what libraries say about hostile slides
    print(f"seed {args.seed}", file=sys.stderr)
    begin = time.monotonic()
    with make_work() as work:
        done = soak(work, args.minutes, args.batch, args.seed)
    figures = {**summarise(done, time.monotonic() - begin), "seed": args.seed}
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:20} {value}")
    if done.unexplained:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
