"""The examples run as a user would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ,
    )


def test_every_example_is_tried_here() -> None:
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text


def test_research(phantom: Path, tmp_path: Path) -> None:
    done = run("research.py", str(phantom), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\d+ tiles, \d+\.\d% flagged\n", done.stdout)
    assert len(done.stdout.splitlines()) == 6


def test_lab_batch(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.svs").write_text("no slide")
    (tmp_path / "night.csv").write_text(f"path,slide_id\n{phantom},Case 7\nbad.svs,Case 8\n")
    done = run("lab_batch.py", "night.csv", "results", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "planned=2 done=1 gaps=0 rejected=1 failed=0 pending=0" in done.stdout
    assert "look at Case 8: REJECTED" in done.stdout
    assert len(list((tmp_path / "results").glob("Case-7-*/tiles.geojson.gz"))) == 1
