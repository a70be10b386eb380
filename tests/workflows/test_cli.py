"""The command line as a user and as a program meet it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from slidetriage.workflows.cli import main
from slidetriage.workflows.interrupts import WISHES
from slidetriage.workflows.publishing import claim_output

Find = Callable[[str], Path]
COMMAND = [sys.executable, "-c", "from slidetriage.workflows.cli import main; main()"]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def cli(*arguments: str | Path) -> Done:
    """Run a command in this process, as `main` does it, which saves importing torch each time."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["slidetriage", *map(str, arguments)])
        patch.setenv("COLUMNS", "120")
        handlers = {wish: signal.getsignal(wish) for wish in WISHES}
        with pytest.raises(SystemExit) as ended:
            main()
        for wish, handler in handlers.items():
            signal.signal(wish, handler)
    code = ended.value.code
    return Done(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def test_help_says_what_it_is_and_that_it_is_for_research() -> None:
    done = cli("--help")
    assert done.returncode == 0
    assert "Research Use Only" in done.stdout
    for command in ("run", "plan", "info", "models", "demo"):
        assert command in done.stdout


def test_version() -> None:
    import slidetriage

    assert cli("--version").stdout.strip() == slidetriage.__version__


def test_a_run_of_good_and_bad_slides(phantom: Path, data: Find, tmp_path: Path) -> None:
    done = cli(
        "run", phantom, data("odd/unreadable.svs"), data("odd/unopenable.tiff"),
        tmp_path / "missing.svs", data("slides/TCGA-CR-7395-01A-01-TS1.svs"),
        "--out", tmp_path / "out", "--engine", "serial", "--json",
    )  # fmt: skip
    assert done.returncode == 3
    record = json.loads(done.stdout)
    assert record["summary"] == {
        "planned": 5, "done": 1, "gaps": 0, "rejected": 3, "failed": 1, "pending": 0,
    }  # fmt: skip
    codes = {row["file"]: row["code"] for row in record["slides"]}
    assert codes == {
        "phantom.tif": None,
        "unreadable.svs": "E_TILE_DECODE",
        "unopenable.tiff": "E_NOT_SLIDE",
        "missing.svs": "E_NOT_FOUND",
        "TCGA-CR-7395-01A-01-TS1.svs": "E_NO_MPP",
    }
    assert "--mpp" in done.stderr, "the way out is said while it runs"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("info",), ("run", "--workers", "1", "--device", "cpu", "--out")],
    ids=["info", "run"],
)
def test_who_computes_nothing_imports_no_torch(
    arguments: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    """It takes seconds, and hundreds of megabytes, that only workers need."""
    code = (
        "import sys\n"
        "from slidetriage.workflows.cli import main\n"
        f"sys.argv = ['slidetriage', {arguments[0]!r}, {str(phantom)!r}, *sys.argv[1:]]\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'timm', 'matplotlib', 'scipy.ndimage'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    more = [*arguments[1:], *([str(tmp_path / "out")] if arguments[-1] == "--out" else [])]
    done = subprocess.run(
        [sys.executable, "-c", code, *more], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if len(more) > 0:
        assert "1 planned = 1 done" in done.stdout


@pytest.mark.slow
def test_what_a_person_reads(phantom: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", phantom, "--out", tmp_path / "out", "--workers", "1"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    assert "1 planned = 1 done + 0 with gaps + 0 rejected + 0 failed + 0 pending" in done.stdout
    assert "Research Use Only" in done.stdout
    assert "tiles/s" in done.stderr
    assert "distributed" not in done.stderr, "Dask's own chatter is not the user's"


@pytest.mark.parametrize(
    ("name", "mpp"),
    [
        ("slides/TCGA-CR-7395-01A-01-TS1.svs", "0.5"),
        pytest.param("slides/kidney-48-5.tif", "0.5", marks=pytest.mark.slow),
    ],
)
def test_slides_without_scale_run_where_it_is_stated(
    data: Find, tmp_path: Path, name: str, mpp: str
) -> None:
    refused = cli("run", data(name), "--out", tmp_path / "a", "--engine", "serial", "--json")
    assert refused.returncode == 3
    assert json.loads(refused.stdout)["slides"][0]["code"] == "E_NO_MPP"
    done = cli("run", data(name), "--mpp", mpp, "--out", tmp_path / "b", "--engine", "serial")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "nothing*.svs", "--out", "OUT"], 2, "fits no file"),
        (["run", "PHANTOM", "--out", "OUT", "--model", "no-such-model"], 2, "no-such-model"),
        (["run", "PHANTOM", "--out", "OUT", "--engine", "magic"], 2, "serial or dask"),
        (["run", "PHANTOM", "--out", "OUT", "--tissue", "magic"], 2, "magic"),
        (["run", "PHANTOM", "--out", "OUT", "--ngff", "0.6"], 2, "0.6"),
        (["run", "PHANTOM", "--out", "OUT", "--overlap", "2"], 2, "overlap"),
        (["run", "PHANTOM", "--out", "OUT", "--device", "abacus"], 2, "abacus"),
        (["run", "PHANTOM", "--out", "OUT", "--scheduler", "tcp://10.0.0.1:8786"], 2, "TLS"),
        (["run", "PHANTOM", "--out", "PHANTOM/out"], 74, "cannot be written"),
        (["info", "missing.svs"], 3, "E_NOT_FOUND"),
        (["plan", "nothing*.svs"], 2, "fits no file"),
        (["plan", "PHANTOM", "--model", "no-such-model"], 2, "no-such-model"),
        (["models", "show", "no-such-model"], 2, "no-such-model"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    phantom: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    filled = [
        a.replace("PHANTOM", str(phantom)).replace("OUT", str(tmp_path / "out")) for a in arguments
    ]
    done = cli(*filled)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*")), "nothing half-written is left"


def test_a_folder_in_use_is_left_alone(phantom: Path, tmp_path: Path) -> None:
    with claim_output(tmp_path):
        done = cli("run", phantom, "--out", tmp_path, "--engine", "serial")
    assert done.returncode == 75
    assert f"process {os.getpid()}" in done.stderr


def test_an_interrupt_ends_the_run_and_says_so(phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "run", str(phantom), "--out", str(out), "--engine", "serial"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / ".staging").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    left = {path.name for path in out.iterdir()}
    assert left <= {"run", "worklist.csv", "worklist.json", ".staging"} | {
        p.name for p in out.glob("phantom-*") if (p / "manifest.json").exists()
    }
    done = cli("run", phantom, "--out", out, "--engine", "serial")
    assert done.returncode == 0, done.stderr
    assert not (out / ".staging").exists(), "what was read went into the result"


def test_plan_says_beforehand_what_a_run_takes(phantom: Path, data: Find) -> None:
    broken = data("odd/unreadable.svs")
    done = cli("plan", phantom, data("slides/cmu1-dicom"), broken, "--workers", "3", "--json")
    assert done.returncode == 3
    record = json.loads(done.stdout)
    dicom, painted, refused = sorted(record["slides"], key=lambda row: row.get("reader") or "z")
    assert (dicom["reader"], dicom["reader_reason"]) == (
        "openslide", "dicom files are not read directly",
    )  # fmt: skip
    assert painted["reader"] == "tiff"
    assert "same pixels" in painted["reader_reason"]
    assert (Path(refused["path"]), refused["code"]) == (broken, "E_TILE_DECODE")
    total = record["total"]
    assert (total["slides"], total["planned"], total["refused"]) == (3, 2, 1)
    assert total["tiles"] == dicom["tiles"] + painted["tiles"]
    assert (painted["cells"], total["cells"]) == (None, None)
    assert record["machine"]["workers"] == 3
    assert total["memory_bytes"] > 3 * total["worker_bytes"] > 0
    assert "estimate" in record["note"]


def test_plan_shows_a_person_slides_readers_and_totals(phantom: Path, data: Find) -> None:
    done = cli("plan", phantom, data("odd/unreadable.svs"))
    assert done.returncode == 3
    for text in (
        "phantom", "tiff: tiled TIFF, same pixels as OpenSlide's", "CANNOT unreadable",
        "E_TILE_DECODE", "1 can be done, 1 cannot", "Time", "Memory", "Disk", "An estimate",
    ):  # fmt: skip
        assert text in done.stdout
    assert cli("plan", phantom).returncode == 0


def test_info_tells_what_a_slide_is(data: Find) -> None:
    done = cli("info", data("slides/CMU-1-Small-Region.svs"))
    assert done.returncode == 0
    for text in ("aperio", "2220 x 2967", "0.499", "20x", "1.11 x 1.48 mm", "same pixels"):
        assert text in done.stdout
    record = json.loads(cli("info", data("slides/CMU-1-Small-Region.svs"), "--json").stdout)
    assert record["mpp"] == {"x": 0.499, "y": 0.499, "source": "file"}


def test_info_survives_what_kills_who_opens_it(
    phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIDETRIAGE_CRASH_AT", "slide.open")
    done = cli("info", phantom)
    assert done.returncode == 3
    assert "E_CRASH" in done.stderr
    assert "SIGKILL" in done.stderr


def test_models_are_listed_and_shown() -> None:
    assert "breast-idc-scout" in cli("models", "list").stdout
    shown = cli("models", "show", "breast-idc-scout")
    assert "Research Use Only" in shown.stdout
    card = json.loads(cli("models", "show", "breast-idc-scout", "--json").stdout)
    assert card["name"] == "breast-idc-scout"
    assert json.loads(cli("models", "list", "--json").stdout)[0] == card


def test_detectors_of_nuclei_are_listed_and_shown() -> None:
    listed = json.loads(cli("models", "list", "--detectors", "--json").stdout)
    assert [each["name"] for each in listed] == ["nuclei-he"]
    assert "nuclei-he" in cli("models", "list", "--detectors").stdout
    shown = cli("models", "show", "nuclei-he").stdout
    assert "For Research Use Only" in shown
    assert f"{listed[0]['metrics'][0]['value']:.3f}" in shown
    assert json.loads(cli("models", "show", "nuclei-he", "--json").stdout) == listed[0]
