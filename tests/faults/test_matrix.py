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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pytest
import zarr
from numpy.typing import NDArray

from conftest import DATA
from faults import geometry, names, not_slides, pixels, truncation
from faults.bench import Run, left_visible, make_once, run_batch, run_cli, tree
from faults.cases import BY_NUMBER, CASES, SECTIONS
from faults.painted import write_good
from faults.specimens import Specimen

VARIANTS = DATA / "slides" / "dicom-variants"
HUNG_AFTER_S = 40.0
"""For the few that are run by themselves because they may take the process with them."""

MORE_MEMORY_KB = 400_000
"""That a batch of hostile slides may take beyond a clean run."""


def make_beyond(here: Path) -> list[Specimen]:
    """Names and places that may end the run before it begins, or when it tells of them."""
    makers = (not_slides.make_closed, names.make_too_long, names.make_undecodable)
    return [specimen for make in makers for specimen in make(here)]


def make_killer(here: Path) -> list[Specimen]:
    """What may kill its reader."""
    return [pixels.make_killer(here, VARIANTS)] if VARIANTS.exists() else []


def make_dicom(here: Path) -> list[Specimen]:
    """What is made of real files."""
    return truncation.make_dicom(here, VARIANTS) if VARIANTS.exists() else []


BATCHES: dict[str, Callable[[Path], list[Specimen]]] = {
    "A": not_slides.make,
    "B": truncation.make,
    "C": pixels.make,
    "D": geometry.make,
    "E": names.make,
    "dicom": make_dicom,
    "ring": not_slides.make_rings,
    "killer": make_killer,
    "beyond": make_beyond,
}


ALONE = {
    "08-folder": "beyond",
    "11": "ring",
    "35-killed": "killer",
    "58": "beyond",
    "62-too-long": "beyond",
}  # fmt: skip
"""What may take the whole run with it is not run with its section."""

BY_SECTION = [
    (
        ALONE.get(label)
        or ALONE.get(label[:2])
        or ("dicom" if 22 <= case.number <= 24 else case.section),
        label,
    )
    for case in CASES
    for label in case.labels
    if case.section != "F"
]


@dataclass(frozen=True)
class Batch:
    """A batch that was run."""

    specimens: dict[str, Specimen]
    run: Run


@pytest.fixture(scope="session")
def good(shared: Path) -> tuple[Path, Path]:
    """Two slides with nothing wrong; the first has the pixels that most specimens are made of."""

    def make(here: Path) -> tuple[Path, Path]:
        return write_good(here / "good-one.svs", 3), write_good(here / "good-two.svs", 4)

    return make_once(shared, "good", make)


@pytest.fixture(scope="session")
def clean(shared: Path, good: tuple[Path, Path]) -> Run:
    """The good slides alone."""
    run = make_once(shared, "clean", lambda here: run_cli(good, here / "results"))
    assert run.returncode == 0, run.stderr
    return run


@pytest.fixture(scope="session")
def batches(shared: Path, good: tuple[Path, Path]) -> Callable[[str], Batch]:
    """Runs a batch when it is first asked for."""

    def run(name: str) -> Batch:
        def make(here: Path) -> Batch:
            slides = here / "slides"
            slides.mkdir()
            specimens = BATCHES[name](slides)
            growing = [s.path for s in specimens if s.path.name == truncation.GROWING]
            alone = name in ALONE.values()
            ran = run_batch(
                here, specimens, good,
                growing=growing[0] if growing else None,
                timeout_s=HUNG_AFTER_S if alone else 240,
            )  # fmt: skip
            return Batch({s.label: s for s in specimens}, ran)

        return make_once(shared, f"batch-{name}", make)

    return run


def needs_real_data(batch: str) -> bool:
    return batch in ("dicom", "killer")


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
def test_the_table_is_what_is_made(batch: str, tmp_path: Path) -> None:
    if needs_real_data(batch) and not VARIANTS.exists():
        pytest.skip("real data not found")
    made = BATCHES[batch](tmp_path)
    assert {s.label for s in made} == {label for where, label in BY_SECTION if where == batch}
    for specimen in made:
        case = BY_NUMBER[specimen.case]
        assert specimen.variant in (case.fails if specimen.must_fail else case.passes)
        assert set(specimen.codes or (specimen.state,)) <= set(case.expected), specimen.label


@pytest.mark.parametrize(("batch", "label"), BY_SECTION, ids=[label for _, label in BY_SECTION])
def test_it_ends_as_it_must(batches: Callable[[str], Batch], batch: str, label: str) -> None:
    """State, code, and a message that names the slide, the cause and the remedy."""
    if needs_real_data(batch) and not VARIANTS.exists():
        pytest.skip("real data not found")
    ran = batches(batch)
    specimen = ran.specimens[label]
    if specimen.case == 8 and os.access(specimen.path, os.R_OK) and os.geteuid():
        pytest.skip("this file system knows no permissions")
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
    if needs_real_data(batch) and not VARIANTS.exists():
        pytest.skip("real data not found")
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


def test_the_sums_add_up(batches: Callable[[str], Batch]) -> None:
    for batch in ("A", "C", "E"):
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
        ran = batches("C")
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
    run = batches("D").run
    row = run.row(batches("D").specimens[label].path)
    folder = run.out / row["directory"]
    assert (row["verdict"], row["score"], row["tiles"]) == ("needs eyes", None, 0)
    assert np.isnan(np.asarray(zarr.open_group(folder / "heatmap.zarr", mode="r")["s0"])).all()
    assert orjson.loads((folder / "annotations.geojson").read_bytes())["features"] == []


def test_tissue_everywhere_is_read_everywhere(batches: Callable[[str], Batch]) -> None:
    ran = batches("D")
    assert ran.run.row(ran.specimens["54"].path)["tiles"] == 4 * 5


@pytest.mark.parametrize("label", ["52-black", "52-pen"])
def test_what_is_no_tissue_is_never_cleared(batches: Callable[[str], Batch], label: str) -> None:
    ran = batches("D")
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
    for one, other in (
        ("59-decomposed", "59-composed"), ("59-upper", "59-lower"), ("60-one", "60-two"),
        ("60-one", "60-suffix"),
    ):  # fmt: skip
        first, second = (ran.run.row(paths[label])["directory"] for label in (one, other))
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


def test_what_a_searched_folder_holds_is_not_passed_over(
    shared: Path, good: tuple[Path, Path], tmp_path: Path
) -> None:
    """A slide that is a broken link, or no file at all, is missed by nobody else."""
    slides = tmp_path / "slides"
    slides.mkdir()
    (slides / "good.svs").symlink_to(good[0])
    (slides / "dangling.svs").symlink_to("nowhere.svs")
    (slides / "pipe.svs").symlink_to("/dev/null")
    (slides / "empty.svs").mkdir()
    run = run_cli([slides], tmp_path / "results")
    states = {Path(row["path"]).name: (row["state"], row["code"]) for row in run.rows}
    assert states["good.svs"] == ("DONE", None)
    assert states.get("dangling.svs") == ("REJECTED", "E_NOT_FOUND")
    assert states.get("pipe.svs") == ("REJECTED", "E_NOT_REGULAR")
    assert states.get("empty.svs") == ("REJECTED", "E_NOT_REGULAR")


def test_a_folder_called_a_slide_stops_nothing(good: tuple[Path, Path], tmp_path: Path) -> None:
    """Named on the command line it is one slide that is none, not the end of the run."""
    folder = tmp_path / "folder.svs"
    folder.mkdir()
    run = run_cli([folder, good[0]], tmp_path / "results")
    assert run.returncode == 3, run.stderr
    assert run.row(folder)["code"] == "E_NOT_REGULAR"
    assert run.row(good[0])["state"] == "DONE"
