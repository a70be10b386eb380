"""The torture benches themselves, short: nothing is lost, and every failure has its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def bench(name: str, *options: str) -> dict[str, Any]:
    """What a bench prints for programs; its other words are shown where it fails."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), "--json", *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def test_killed_runs_end_as_undisturbed_ones_do() -> None:
    found = bench("chaos.py", "--trials", "2", "--serial", "--chained", "--doubles", "1")
    assert found["wrong"] == []
    assert (found["trials"], found["identical"]) == (2, 2)
    assert found["kills"] >= 1
    assert found["crash_points"] == {"tried": 12, "identical": 12}
    assert found["double_runs"]["tried"] == found["double_runs"]["identical"] == 1
    assert found["recomputed_slides"] == 0
    assert found["audit_valid"] == 2 + 1 + 1


def test_spoilt_slides_end_in_a_result_or_a_code() -> None:
    found = bench("fuzz.py", "--mutants", "80", "--seed", "11")
    assert found["found"] == []
    assert found["mutants"] == 80
    assert found["served"] + found["rejected"] + found["crashed"] == 80
    assert found["served"] > 10
    assert found["rejected"] > 50
    assert "E_INTERNAL" not in found["by_code"]


@pytest.mark.slow
def test_what_happens_in_a_night_costs_nothing() -> None:
    found = bench(
        "mishaps.py", "--disks", "2", "--interrupts", "2", "--stalls", "1", "--clocks", "1"
    )
    assert found["wrong"] == []
    assert found["interrupts"] == {"tried": 2, "passed": 2}
    assert found["stalls"] == {"tried": 1, "passed": 1}
    assert found["slowest_interrupt_s"] < 10
    for kind, times in (("disks", 2), ("clocks", 1)):
        assert kind in found["skipped"] or found[kind] == {"tried": times, "passed": times}
    if os.environ.get("CI"):
        assert "clocks" not in found["skipped"], "apt-get install faketime"


@pytest.mark.slow
def test_load_and_soak_measure_what_they_say() -> None:
    load = bench("load.py", "--slides", "6", "--rows", "500", "--only", "batch", "manifest")
    assert load["states"] == {"DONE": 6}
    assert load["resume_opened"] == 0
    assert load["manifest_100k"]["rows"] == 500
    soak = bench("soak.py", "--minutes", "0", "--batch", "3")
    assert (soak["batches"], soak["slides"], soak["hostile"]) == (4, 12, 4)
    assert soak["found"] == []
    assert soak["temporary_files"] == 0
