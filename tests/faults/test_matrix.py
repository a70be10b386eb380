"""The fault matrix, A to E: each hostile slide ends as it must and disturbs no other.

Of every case the five of the design are checked: code and exit status; all other slides' results
equal to a clean run's, byte by byte; nothing half-made to be seen; a message that names the slide,
the cause and the remedy; no process, staging or lock left.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pytest
import zarr
from numpy.typing import NDArray

from conftest import DATA
from faults import geometry, names, not_slides, pixels, truncation
from faults.bench import Run, left_visible, make_all, make_once, one, run_batch, run_cli, tree
from faults.cases import BY_NUMBER, CASES, SECTIONS
from faults.painted import write_good
from faults.specimens import Specimen

VARIANTS = DATA / "slides" / "dicom-variants"
MORE_MEMORY_KB = 400_000
"""That a batch of hostile slides may take beyond a clean run."""


def make_real(here: Path) -> list[Specimen]:
    """What is made of real DICOM files: broken series, and a slide that kills its reader."""
    if not VARIANTS.exists():
        return []
    return [*truncation.make_dicom(here, VARIANTS), pixels.make_killer(here, VARIANTS)]


BATCHES: dict[str, tuple[Callable[[Path], list[Specimen]], ...]] = {
    "AB": (
        not_slides.make, not_slides.make_rings, not_slides.make_closed, truncation.make, make_real,
    ),
    "CD": (pixels.make, geometry.make),
    "E": (names.make, names.make_too_long, names.make_undecodable),
}  # fmt: skip
"""Sections that share a run, since to start one takes longer than most slides."""

REAL = ("22", "22-frames", "23", "24-one", "24-two", "35-killed")
EACH = [
    ("AB" if label in REAL else next(batch for batch in BATCHES if case.section in batch), label)
    for case in CASES
    for label in case.labels
    if case.section != "F"
]


@dataclass(frozen=True)
class Batch:
    """A batch that was run."""

    specimens: dict[str, Specimen]
    run: Run


GOOD = ("good-one.svs", "good-two.svs")
"""Slides with nothing wrong; the first has the pixels that most specimens are made of."""


def write_slides(here: Path) -> tuple[Path, Path]:
    """The good slides."""
    return write_good(here / GOOD[0], 3), write_good(here / GOOD[1], 4)


def run_specimens(name: str, good: tuple[Path, Path], here: Path) -> Batch:
    """Run a batch with the good slides among it."""
    specimens, folders = [], []
    for number, make in enumerate(BATCHES[name]):
        folders.append(here / f"slides-{number}")
        folders[-1].mkdir()
        specimens += make(folders[-1])
    growing = [s.path for s in specimens if s.path.name == truncation.GROWING]
    run = run_batch(
        here,
        specimens,
        good,
        growing=growing[0] if growing else None,
        environment={"FAULTS_DRAW": "1"} if name == "CD" else None,
    )
    for folder in folders:
        for closed in (folder / "closed", folder / "locked.svs"):
            if closed.exists():
                closed.chmod(0o700)  # so that all of it can be removed
    return Batch({s.label: s for s in specimens}, run)


@pytest.fixture(scope="session")
def good(shared: Path) -> tuple[Path, Path]:
    """The good slides."""
    return one(make_once(shared, "good", write_slides))


@pytest.fixture(scope="session")
def batches(shared: Path, good: tuple[Path, Path]) -> Callable[[str], Batch]:
    """Runs a batch when it is first asked for; where two processes test, both run all of them."""
    makers = {f"batch-{name}": partial(run_specimens, name, good) for name in BATCHES}
    makers["batch-clean"] = partial(run_clean, good)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        made = make_all(shared, makers, backwards=int(worker[2:]) % 2 == 1)
        return lambda name: made[f"batch-{name}"]
    return lambda name: one(make_once(shared, f"batch-{name}", makers[f"batch-{name}"]))


def run_clean(good: tuple[Path, Path], here: Path) -> Batch:
    """The good slides alone."""
    return Batch({}, run_cli(good, here / "results"))


@pytest.fixture(scope="session")
def clean(batches: Callable[[str], Batch]) -> Run:
    """The good slides alone."""
    run = batches("clean").run
    assert run.returncode == 0, run.stderr
    return run


def is_made(label: str) -> bool:
    """Whether a specimen is there: some need real data."""
    return label not in REAL or VARIANTS.exists()


def test_there_are_76_cases_and_most_specimens_must_fail() -> None:
    assert [case.number for case in CASES] == list(range(1, 77))
    assert [n for low, high in SECTIONS.values() for n in range(low, high + 1)] == list(
        range(1, 77)
    )
    assert all(case.labels for case in CASES)
    fails, passes = (
        sum(len(names) for names in kind)
        for kind in zip(*((case.fails, case.passes) for case in CASES), strict=True)
    )
    assert fails >= 0.7 * (fails + passes)


@pytest.mark.parametrize("batch", BATCHES)
def test_the_table_is_what_is_made(batches: Callable[[str], Batch], batch: str) -> None:
    made = batches(batch).specimens
    assert set(made) == {label for where, label in EACH if where == batch and is_made(label)}
    for specimen in made.values():
        case = BY_NUMBER[specimen.case]
        assert specimen.variant in (case.fails if specimen.must_fail else case.passes)
        assert set(specimen.codes or (specimen.state,)) <= set(case.expected), specimen.label


@pytest.mark.parametrize(("batch", "label"), EACH, ids=[label for _, label in EACH])
def test_it_ends_as_it_must(batches: Callable[[str], Batch], batch: str, label: str) -> None:
    """State, code, and a message that names the slide, the cause and the remedy."""
    if not is_made(label):
        pytest.skip("real data not found (set SLIDETRIAGE_DATA to the folder that holds it)")
    ran = batches(batch)
    specimen = ran.specimens[label]
    if specimen.case == 8 and not os.geteuid() and not shutil.which("setpriv"):
        pytest.skip("root may read anything, and setpriv is not installed")
    row = ran.run.row(specimen.path)
    assert row["state"] == specimen.state, row
    assert row["code"] in (specimen.codes or (None,)), row
    said = row["message"].lower()
    if specimen.must_fail:
        assert specimen.path.stem.lower() in said, f"the slide is not named: {said}"
    for words in specimen.says:
        assert any(word in said for word in words.split("|")), f"{words!r} is not said: {said}"


@pytest.mark.parametrize("batch", BATCHES)
def test_nothing_else_is_touched(
    batches: Callable[[str], Batch], clean: Run, good: tuple[Path, Path], batch: str
) -> None:
    """Exit status, other slides' bytes, no partial folder, no process, staging or lock."""
    ran = batches(batch)
    run, specimens = ran.run, ran.specimens.values()
    assert run.returncode == (3 if any(s.must_fail for s in specimens) else 0), run.stderr[-2000:]
    assert len(run.rows) == len(specimens) + len(good), "a row for every slide"
    for path in good:
        theirs, ours = (r.out / str(r.row(path)["directory"]) for r in (clean, run))
        assert tree(ours) == tree(theirs)
    assert left_visible(run.out) == []
    assert run.orphans == ()
    assert "Traceback" not in run.stderr
    assert run.peak_kb <= clean.peak_kb + MORE_MEMORY_KB, "kB at most"


@pytest.mark.parametrize("batch", BATCHES)
def test_the_sums_add_up(batches: Callable[[str], Batch], batch: str) -> None:
    run = batches(batch).run
    summary = json.loads(run.stdout)["summary"]
    assert summary["planned"] == len(run.rows)
    assert sum(summary.values()) == 2 * len(run.rows)


@pytest.fixture(scope="session")
def heat(
    batches: Callable[[str], Batch], clean: Run, good: tuple[Path, Path]
) -> Callable[[str], tuple[Specimen, NDArray[np.float32], NDArray[np.float32]]]:
    """The heatmap of a specimen of section C, and the clean slide's."""

    def read(label: str) -> tuple[Specimen, NDArray[np.float32], NDArray[np.float32]]:
        ran = batches("CD")
        specimen = ran.specimens[label]
        maps = [
            np.asarray(zarr.open_group(run.out / row["directory"] / "heatmap.zarr", mode="r")["s0"])
            for run, row in (
                (ran.run, ran.run.row(specimen.path)), (clean, clean.row(good[0])),
            )
        ]  # fmt: skip
        return specimen, maps[0], maps[1]

    return read


PIXEL_FAULTS = ("25", "25-noise", "27", "31", "32-without-sidecar", "33", "34")


@pytest.mark.parametrize("label", PIXEL_FAULTS)
def test_only_the_cells_of_the_fault_differ(
    heat: Callable[[str], tuple[Specimen, NDArray[np.float32], NDArray[np.float32]]], label: str
) -> None:
    specimen, ours, clean = heat(label)
    lost, touched = (np.zeros(clean.shape[1:], bool) for _ in range(2))
    for cell in specimen.lost:
        lost[cell] = True
    for cell in specimen.touched:
        touched[cell] = True
    assert np.isnan(ours[:, lost]).all(), "what was lost has no value in any channel"
    np.testing.assert_array_equal(np.isnan(ours[0]) & ~lost, np.isnan(clean[0]) & ~lost)
    # Attention is a share of the slide's, so it changes everywhere when a tile is lost.
    np.testing.assert_array_equal(ours[0][~touched], clean[0][~touched])
    if specimen.lost:
        assert not np.isnan(clean[0][lost]).any(), "the clean slide has values there"
    else:
        assert (ours[0][touched] != clean[0][touched]).any(), "the documented limit: not noticed"


@pytest.mark.parametrize("label", ["28", "29", "30"])
def test_damage_beside_the_pixels_changes_nothing(
    heat: Callable[[str], tuple[Specimen, NDArray[np.float32], NDArray[np.float32]]], label: str
) -> None:
    _, ours, clean = heat(label)
    np.testing.assert_array_equal(ours, clean)


@pytest.mark.parametrize("label", ["51", "53"])
def test_no_tissue_is_an_empty_result(batches: Callable[[str], Batch], label: str) -> None:
    run = batches("CD").run
    row = run.row(batches("CD").specimens[label].path)
    folder = run.out / row["directory"]
    assert (row["verdict"], row["score"], row["tiles"]) == ("needs eyes", None, 0)
    assert np.isnan(np.asarray(zarr.open_group(folder / "heatmap.zarr", mode="r")["s0"])).all()
    assert orjson.loads((folder / "annotations.geojson").read_bytes())["features"] == []


def test_tissue_everywhere_is_read_everywhere(batches: Callable[[str], Batch]) -> None:
    ran = batches("CD")
    assert ran.run.row(ran.specimens["54"].path)["tiles"] == 4 * 5


@pytest.mark.parametrize("label", ["52-black", "52-pen"])
def test_what_is_no_tissue_is_never_cleared(batches: Callable[[str], Batch], label: str) -> None:
    ran = batches("CD")
    assert ran.run.row(ran.specimens[label].path)["verdict"] == "needs eyes"


def test_every_name_has_its_own_folder(batches: Callable[[str], Batch]) -> None:
    """Also where a file system does not tell A from a; equal slides may share theirs."""
    ran = batches("E")
    folders: dict[str, set[str]] = {}
    for specimen in ran.specimens.values():
        if not specimen.must_fail:
            directory = ran.run.row(specimen.path)["directory"]
            assert directory.isascii()
            assert directory.isprintable()
            assert Path(directory).name == directory
            assert directory[0] not in "-."
            folders.setdefault(directory.casefold(), set()).add(directory)
    assert [names for names in folders.values() if len(names) > 1] == []
    paths = {label: specimen.path for label, specimen in ran.specimens.items()}
    for this, that in (
        ("59-decomposed", "59-composed"), ("59-upper", "59-lower"), ("60-one", "60-two"),
        ("60-one", "60-suffix"),
    ):  # fmt: skip
        first, second = (ran.run.row(paths[label])["directory"] for label in (this, that))
        assert first.casefold() != second.casefold()
    assert len({ran.run.row(paths[f"61-{n}"])["score"] for n in ("first", "second")}) == 1


def test_names_cannot_break_a_list_or_a_terminal(batches: Callable[[str], Batch]) -> None:
    ran = batches("E")
    text = (ran.run.out / "worklist.csv").read_bytes().decode()
    assert len(list(csv.DictReader(io.StringIO(text, newline="")))) == len(ran.run.rows)
    assert len(json.loads((ran.run.out / "worklist.json").read_bytes())["slides"]) == len(
        ran.run.rows
    )
    for said in (ran.run.stdout, ran.run.stderr):
        assert not {"\x1b", "\x07", "\r"} & set(said)


def test_an_id_that_climbs_stays_inside(batches: Callable[[str], Batch]) -> None:
    ran = batches("E")
    directory = ran.run.row(ran.specimens["65"].path)["directory"]
    assert ".." not in Path(directory).parts
    assert (ran.run.out / directory / "manifest.json").exists()
    assert list(ran.run.out.parents[2].rglob("*climbed*")) == [ran.run.out / directory]


def test_what_is_no_file_is_not_passed_over(good: tuple[Path, Path], tmp_path: Path) -> None:
    """A broken link in a folder that is searched is missed by nobody else.

    A folder called like a slide, when it is named, is one slide that is none, and not the end.
    """
    slides, named = tmp_path / "slides", tmp_path / "named.svs"
    slides.mkdir()
    named.mkdir()
    (slides / "good.svs").symlink_to(good[0])
    (slides / "dangling.svs").symlink_to("nowhere.svs")
    (slides / "pipe.svs").symlink_to("/dev/null")
    (slides / "empty.svs").mkdir()
    run = run_cli([slides, named], tmp_path / "results")
    assert run.returncode == 3, run.stderr
    ends = {Path(row["path"]).name: (row["state"], row["code"]) for row in run.rows}
    assert ends == {
        "good.svs": ("DONE", None),
        "dangling.svs": ("REJECTED", "E_NOT_FOUND"),
        "pipe.svs": ("REJECTED", "E_NOT_REGULAR"),
        "empty.svs": ("REJECTED", "E_NOT_REGULAR"),
        "named.svs": ("REJECTED", "E_NOT_REGULAR"),
    }
