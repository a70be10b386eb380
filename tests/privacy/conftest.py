"""Runs over slides that carry canaries, with everything that left them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tifffile

from privacy.canaries import Canaries, plant

CHILD = Path(__file__).with_name("child.py")
SEED = 20_260


@dataclass(frozen=True, slots=True)
class Left:
    """What a run left behind."""

    code: int
    out: Path
    told: dict[str, bytes]
    """stdout, stderr, logs, task keys and command lines of its processes."""


Run = Callable[..., Left]


@pytest.fixture(scope="session")
def canaries(
    phantom: Path, data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Canaries:
    """Slides that carry 40 tokens."""
    dicom = data("slides/dicom-variants/jpeg.dicom")
    tissue = tifffile.imread(phantom)[200:1000, 300:1300]
    return plant(tmp_path_factory.mktemp("in"), tissue, dicom, SEED)


@pytest.fixture(scope="session")
def run(canaries: Canaries, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run over the canaries in a process of its own."""

    def start(*options: str, manifest: Path = canaries.manifest) -> Left:
        folder = tmp_path_factory.mktemp("run")
        out, logs, keys = folder / "out", folder / "logs.txt", folder / "keys.txt"
        command = [sys.executable, CHILD, logs, keys, manifest, "--out", out, *options]
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        )
        lines: set[bytes] = set()
        watch = threading.Thread(target=_watch, args=(process, lines))
        watch.start()
        stdout, stderr = process.communicate(timeout=300)
        watch.join()
        told = {
            "stdout": stdout,
            "stderr": stderr,
            "logs": logs.read_bytes(),
            "keys": keys.read_bytes() if keys.exists() else b"",
            "command lines": b"\n".join(sorted(lines)),
        }
        return Left(process.returncode, out, told)

    return start


def _watch(process: subprocess.Popen[bytes], lines: set[bytes]) -> None:
    """Write down the command lines of a process's descendants while it lives."""
    done = threading.Event()
    while process.poll() is None:
        for child in _descendants(process.pid):
            try:
                lines.add(Path(f"/proc/{child}/cmdline").read_bytes())
            except OSError:
                continue  # it ended meanwhile
        done.wait(0.1)


def _descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(b")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}
