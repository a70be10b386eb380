"""Results appear whole or not at all, and one run owns the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slidetriage.errors import OutputError, SlideTriageError
from slidetriage.workflows.publishing import STAGING, claim_output, publish, write_json


def test_a_claimed_folder_is_left_clean(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with claim_output(out) as claim:
        assert claim.staging == out / STAGING
        (claim.staging / "litter").write_text("x")
    assert list(out.iterdir()) == []


def test_what_a_killed_run_left_is_there_for_the_next_and_then_swept(tmp_path: Path) -> None:
    (tmp_path / STAGING / "old").mkdir(parents=True)
    with claim_output(tmp_path) as claim:
        assert [path.name for path in claim.staging.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SlideTriageError])
def test_a_run_that_is_cut_off_leaves_its_work(tmp_path: Path, error: type[BaseException]) -> None:
    def work() -> None:
        with claim_output(tmp_path) as claim:
            (claim.staging / "work").touch()
            raise error("cut off")

    with pytest.raises(error):
        work()
    assert (tmp_path / STAGING / "work").exists()
    with pytest.raises(OutputError), claim_output(tmp_path):
        raise OutputError("the disk is full")
    assert list(tmp_path.iterdir()) == []


def test_staging_is_a_folder_of_its_own(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / STAGING).symlink_to(elsewhere)
    with claim_output(out) as claim:
        assert not claim.staging.is_symlink()
    assert (elsewhere / "precious").exists()


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from slidetriage.workflows.publishing import claim_output\n"
        "with claim_output(Path(sys.argv[1])): pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with claim_output(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode != 0
        assert f"process {os.getpid()}" in second.stderr
        assert "E_LOCKED" in second.stderr or "another run" in second.stderr
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="--out"), claim_output(tmp_path / "file" / "out"):
        pass


def test_publishing_moves_everything_at_once(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    (staged / "deep").mkdir(parents=True)
    (staged / "deep" / "a").write_text("x")
    publish(staged, tmp_path / "final")
    assert (tmp_path / "final" / "deep" / "a").read_text() == "x"
    assert not staged.exists()


def test_publishing_never_overwrites(tmp_path: Path) -> None:
    for name in ("staged", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    with pytest.raises(OutputError):
        publish(tmp_path / "staged", tmp_path / "final")
    assert (tmp_path / "final" / "a").read_text() == "final"


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1})
    write_json(path, {"b": [1.5, None]})
    assert path.read_text() == '{\n  "b": [\n    1.5,\n    null\n  ]\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(OutputError, match="missing"):
        write_json(tmp_path / "missing" / "a.json", {})
