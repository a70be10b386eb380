"""Files, folders, globs and manifests become requests, each slide once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slidetriage.errors import SlideNotReadable, UsageError
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import (
    SlideRequest,
    display_name,
    expected_hash,
    find_requests,
    public_name,
    read_manifest,
)

ABC = hashlib.sha256(b"abc").hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.svs", "a.ndpi", "notes.txt", "deep/c.tif", "deep/d.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(sources: list[str | Path]) -> list[str]:
    return [request.path.name for request in find_requests(sources)]


def test_a_folder_is_searched_with_its_sub_folders(folder: Path) -> None:
    assert names([folder]) == ["a.ndpi", "b.svs", "c.tif", "d.JPG"]


def test_a_glob_finds_what_it_names(folder: Path) -> None:
    assert names([str(folder / "*.svs")]) == ["b.svs"]
    assert names([str(folder / "**" / "*.tif")]) == ["c.tif"]


def test_a_named_file_is_taken_whatever_its_suffix_and_even_if_missing(folder: Path) -> None:
    assert names([folder / "notes.txt", folder / "gone.svs"]) == ["gone.svs", "notes.txt"]


def test_the_same_slide_is_taken_once_and_order_does_not_matter(folder: Path) -> None:
    again = [folder / "b.svs", folder, folder / "deep" / ".." / "a.ndpi"]
    assert sorted(set(names(again))) == ["a.ndpi", "b.svs", "c.tif", "d.JPG"]
    assert names(again) == names(list(reversed(again)))


@pytest.mark.parametrize("source", ["nothing*.svs", "empty"])
def test_what_names_nothing_is_an_error(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=source.replace("*", r"\*")):
        find_requests([str(tmp_path / source)])


def test_no_source_at_all_is_an_error() -> None:
    with pytest.raises(UsageError):
        find_requests([])


def test_a_manifest_states_names_scales_and_patients(tmp_path: Path) -> None:
    manifest = tmp_path / "slides.csv"
    manifest.write_text(
        "\ufeffpath,slide_id,mpp,patient_id\n"
        "x/a.svs,Case 1,0.25,P1\n"
        "b.svs,,,\n"
        'c.svs,,"0,25",P2\n'
        ",,,\n",
        encoding="utf-8",
    )
    first, second, third = read_manifest(manifest, mpp=0.5)
    assert first.path == tmp_path / "x" / "a.svs"
    assert (first.name, first.mpp, first.mpp_source, first.patient_id) == (
        "Case 1",
        0.25,
        "manifest",
        "P1",
    )
    assert (second.name, second.mpp, second.mpp_source) == ("b", 0.5, "command line")
    assert third.problem is not None
    assert third.problem[0] == "E_BAD_MPP"


def test_a_manifest_without_paths_says_what_it_has(tmp_path: Path) -> None:
    manifest = tmp_path / "slides.csv"
    manifest.write_text("file,mpp\na.svs,0.5\n")
    with pytest.raises(UsageError, match="file, mpp"):
        read_manifest(manifest)


def test_a_dicom_slide_of_many_files_is_one_request(data: Callable[[str], Path]) -> None:
    folder = data("slides/cmu1-dicom")
    assert len(find_requests([folder])) == 1
    assert len(find_requests(sorted(folder.iterdir()))) == 1
    assert len(find_requests([folder.parent / "dicom-variants"])) == 4


def test_a_manifest_states_hashes_priorities_and_stains(tmp_path: Path) -> None:
    manifest = tmp_path / "slides.csv"
    manifest.write_text(
        "path,sha256,priority,stain,notes\n"
        f"a.svs, {ABC.upper()} ,-3, CD8 ,x\nb.svs,,, ,\nc.svs,{ABC}\n"
    )
    first, second, third = read_manifest(manifest)
    assert (first.stain, second.stain, third.stain) == ("CD8", None, None)
    assert (first.sha256, first.priority, first.problem) == (ABC, -3, None)
    assert (second.sha256, second.priority, second.problem) == (None, 0, None)
    assert (third.sha256, third.priority, third.row) == (ABC, 0, None)


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        (f"{ABC[:-1]},0,", "E_HASH"),
        (f"{ABC}0,0,", "E_HASH"),
        (f"g{ABC[1:]},0,", "E_HASH"),
        ("Doe Jane,0,", "E_HASH"),
        (f"{ABC},high,", "E_USAGE"),
        (f"{ABC},1.5,", "E_USAGE"),
        (f"{ABC},0,Doe Jane", "E_BAD_MPP"),
    ],
)
def test_a_bad_cell_is_the_rows_problem_and_is_not_repeated(
    tmp_path: Path, cells: str, code: str
) -> None:
    manifest = tmp_path / "patient.csv"
    manifest.write_text(f"path,sha256,priority,mpp\ngood.svs,,,\na.svs,{cells}\n")
    good, bad = read_manifest(manifest)
    assert good.problem is None
    assert bad.problem is not None
    assert bad.problem[0] == code
    assert "line 3 of the manifest, a" in bad.problem[1]
    assert not {"Doe", "patient", "high", "1.5"} & set(bad.problem[1].replace(".csv", " ").split())


def test_a_sidecar_states_the_hash(tmp_path: Path) -> None:
    slide = tmp_path / "my slide.svs"
    slide.write_bytes(b"abc")
    request = SlideRequest(slide, "my slide")
    assert expected_hash(request) is None
    sidecar = tmp_path / "my slide.svs.sha256"
    for text in (ABC, f"{ABC}\n", f"{ABC.upper()}  other.svs\n", f"{ABC} *my slide.svs\r\n"):
        sidecar.write_text(text)
        assert expected_hash(request) == ABC
    wrong = "0" * 64
    sidecar.write_text(f"{wrong}  a.svs\n{ABC}  ./my slide.svs\n{wrong}  slide.svs\n")
    assert expected_hash(request) == ABC
    manifest_wins = SlideRequest(slide, "x", sha256=wrong)
    assert expected_hash(manifest_wins) == wrong


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_a_sidecar_is_read_as_sha256sum_writes_it(tmp_path: Path) -> None:
    for name in ("plain.svs", "back\\slash.svs", "ünï.svs"):
        (tmp_path / name).write_bytes(name.encode())
        done = subprocess.run(
            ["sha256sum", name], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        (tmp_path / f"{name}.sha256").write_text(done.stdout)
        found = expected_hash(SlideRequest(tmp_path / name, "x"))
        assert found == hashlib.sha256(name.encode()).hexdigest()


@pytest.mark.parametrize(
    "text", ["no hash", "", f"{ABC}  a.svs\n{ABC}  b.svs\n", ABC[:-1], "\0" * 100]
)
def test_a_sidecar_without_this_slides_hash_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.svs.sha256").write_text(text)
    with pytest.raises(SlideNotReadable, match="64 hex digits") as caught:
        expected_hash(SlideRequest(tmp_path / "x.svs", "x"))
    assert caught.value.code == "E_HASH"


def test_a_sidecar_that_is_no_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.svs.sha256")
    (tmp_path / "y.svs.sha256").mkdir()
    for name in ("x.svs", "y.svs"):
        with pytest.raises(SlideNotReadable, match="cannot be read"):
            expected_hash(SlideRequest(tmp_path / name, "x"))


def test_names_are_told_unless_the_settings_forbid_it() -> None:
    hidden = Settings(deidentify=True)
    request = SlideRequest(Path("/ward/Doe.svs"), "Case 7", row=1_234_567)
    assert public_name(request, Settings()) == display_name(request, Settings()) == "Case 7"
    assert public_name(request, hidden) == "slide"
    assert display_name(request, hidden) == "slide-row-1234567"
    assert display_name(SlideRequest(Path("a"), "a"), hidden) == "slide"


MEASURING = """
import gc, os, sys, tracemalloc
from slidetriage.workflows.sources import find_requests

touched, real = [], os.stat

def stat(path, **rest):
    touched.append(path)
    return real(path, **rest)

os.stat = stat
find_requests([sys.argv[1]])  # what is imported at the first time is not counted
gc.collect()
tracemalloc.start()
requests = find_requests([sys.argv[1]])
_, peak = tracemalloc.get_traced_memory()
print(len(requests), peak, sum("nowhere" in str(path) for path in touched))
"""


def test_a_long_manifest_is_read_lean_and_touches_no_slide(tmp_path: Path) -> None:
    """In a process of its own: threads that other tests left behind use memory as well."""
    manifest, rows = tmp_path / "long.csv", 20_000
    with manifest.open("w") as file:
        file.write("path,slide_id,patient_id,sha256,notes\n")
        for number in range(rows):
            file.write(f"/nowhere/{number % 99}/{number}.svs,S{number},P{number},{ABC},a note\n")
    command = [sys.executable, "-c", MEASURING, str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, peak, touched = map(int, done.stdout.split())
    assert count == rows
    assert peak / rows < 1250, "bytes; 100,000 rows must fit in about 100 MB"
    assert touched == 0
