"""Files, folders, globs and manifests become requests, each slide once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slidetriage.errors import UsageError
from slidetriage.workflows.sources import find_requests, read_manifest


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
