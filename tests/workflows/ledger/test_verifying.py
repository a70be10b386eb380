"""Every damage to published results is found, and nothing is where there is none."""

from __future__ import annotations

import csv
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import zarr

from slidetriage import Resources, Settings, triage
from slidetriage.errors import UsageError
from slidetriage.workflows.ledger.audit import AuditLog
from slidetriage.workflows.ledger.events import Work, slide_ended, slide_running
from slidetriage.workflows.ledger.folders import check_folder
from slidetriage.workflows.ledger.states import Ending
from slidetriage.workflows.ledger.stores import check_store
from slidetriage.workflows.ledger.verifying import Finding, verify_output
from slidetriage.workflows.manifest import hash_files
from slidetriage.workflows.publishing import write_json


def tumour(out: Path) -> Path:
    (found,) = out.glob("tumour-*")
    return found


def sign(folder: Path) -> None:
    """Write the manifest anew over what is there, as damage before publishing would have it."""
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    write_json(folder / "manifest.json", manifest | {"files": hash_files(folder)})


def found(out: Path) -> list[tuple[str, str]]:
    """Where something is wrong."""
    return [(finding.directory, finding.file) for finding in verify_output(out)]


def test_a_sound_folder_has_no_findings(published: Path) -> None:
    assert list(verify_output(published)) == []


@pytest.mark.parametrize("known", [True, False], ids=["with log", "without log"])
def test_of_two_hundred_flipped_bits_all_are_found(out: Path, known: bool) -> None:
    """Anywhere in any file of a result, the manifest as often as all others together."""
    folder = tumour(out)
    told = None
    if known:
        content = (folder / "manifest.json").read_bytes()
        manifest = orjson.loads(content)
        tiles = manifest["tiles"]
        work = Work(1.0, tiles["planned"], tiles["unreadable"])
        told = Ending(0, manifest["state"], directory=folder.name), work
    assert list(check_folder(folder, told)) == []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    dice = random.Random(7)
    for number in range(200):
        path = folder / "manifest.json" if number % 2 else dice.choice(files)
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[dice.randrange(len(sound))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        assert next(check_folder(folder, told), None) is not None, path
        path.write_bytes(sound)
    assert list(check_folder(folder, told)) == []


def chunks(store: Path) -> list[Path]:
    return [p for p in sorted(store.rglob("*")) if p.is_file() and p.name[0].isdigit()]


@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_every_missing_or_damaged_chunk_is_found_without_the_manifest(
    phantom: Path, tmp_path: Path, ngff: str
) -> None:
    """The store itself tells, where the manifest was written over the loss."""
    settings = Settings(ngff=ngff, keep_features=True)  # type: ignore[arg-type]
    triage(phantom, tmp_path, resources=Resources("serial"), settings=settings)
    (folder,) = tmp_path.glob("phantom-*")
    assert list(check_folder(folder, None)) == []
    dice = random.Random(1)
    for store in (folder / "heatmap.zarr", folder / "features.zarr"):
        assert list(check_store(store)) == []
        assert len(chunks(store)) > 2
        for chunk in chunks(store):
            sound = chunk.read_bytes()
            chunk.unlink()
            assert [what for _, what in check_store(store) if "missing" in what]
            damaged = bytearray(sound)
            damaged[dice.randrange(len(sound))] ^= 1 << dice.randrange(8)
            chunk.write_bytes(damaged)
            assert [what for _, what in check_store(store) if "decoded" in what]
            chunk.write_bytes(sound[: len(sound) // 2])
            assert list(check_store(store)) != []
            chunk.write_bytes(sound)
        assert list(check_store(store)) == []
    chunks(folder / "heatmap.zarr")[0].unlink()
    sign(folder)
    assert [finding.file for finding in check_folder(folder, None)] == ["heatmap.zarr/s0"]


def test_a_store_that_is_none_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    assert "cannot be opened" in next(check_store(tmp_path / "a.zarr"))[1]
    zarr.open_group(tmp_path / "b.zarr", mode="w")
    assert "no array" in next(check_store(tmp_path / "b.zarr"))[1]


def drop(name: str) -> Callable[[Path], None]:
    return lambda out: (tumour(out) / name).unlink()


def add_file(out: Path) -> None:
    (tumour(out) / "notes.txt").write_text("mine")


def add_nested_manifest(out: Path) -> None:
    (tumour(out) / "heatmap.zarr" / "manifest.json").write_text("{}")


def add_link(out: Path) -> None:
    (tumour(out) / "link").symlink_to("result.json")


def garble(out: Path) -> None:
    (tumour(out) / "manifest.json").write_text("[]")


def edit(name: str, *path: str, value: object) -> Callable[[Path], None]:
    """Change a value in a JSON file of the result, and write the manifest anew over it."""

    def change(out: Path) -> None:
        record = orjson.loads((tumour(out) / name).read_bytes())
        inner = record
        for key in path[:-1]:
            inner = inner[key]
        assert inner[path[-1]] != value
        inner[path[-1]] = value
        write_json(tumour(out) / name, record)
        if name != "manifest.json":
            sign(tumour(out))

    return change


def rename(out: Path) -> None:
    tumour(out).rename(out / "other-0123456789ab")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (drop("manifest.json"), "manifest.json"),
        (drop("overlay.png"), "overlay.png"),
        (drop("result.json"), "result.json"),
        (drop("heatmap.zarr/zarr.json"), "heatmap.zarr/zarr.json"),
        (add_file, "notes.txt"),
        (add_nested_manifest, "heatmap.zarr/manifest.json"),
        (add_link, "link"),
        (garble, "manifest.json"),
        (edit("manifest.json", "schema_version", value=99), "manifest.json"),
        (edit("manifest.json", "files", value=None), "manifest.json"),
        (edit("manifest.json", "key", value="0" * 64), "manifest.json"),
        (edit("manifest.json", "state", value="DONE_WITH_GAPS"), "manifest.json"),
        (edit("manifest.json", "provenance", "slide", "bytes", value=1), "manifest.json"),
        (edit("result.json", "state", value="DONE_WITH_GAPS"), "result.json"),
        (edit("result.json", "tiles", "planned", value=1), "result.json"),
        (edit("result.json", "tiles", value=None), "result.json"),
        (edit("result.json", "model", "sha256", value="x"), "result.json"),
        (edit("result.json", "slide_id", value="other"), "result.json"),
    ],
)
def test_each_damage_is_found_and_says_how_to_mend_it(
    out: Path, damage: Callable[[Path], None], file: str
) -> None:
    name = tumour(out).name
    damage(out)
    findings = [finding for finding in verify_output(out) if finding.directory]
    assert any((each.directory, each.file) == (name, file) for each in findings), findings
    assert all(f"Delete the folder {name}" in each.mend for each in findings)
    assert all("slidetriage resume" in each.mend for each in findings)


def test_a_folder_under_another_name_is_found(out: Path) -> None:
    gone = tumour(out).name
    rename(out)
    findings = {(each.directory, each.file): each.what for each in verify_output(out)}
    assert "missing" in findings[gone, ""]
    assert "another slide" in findings["other-0123456789ab", "result.json"]
    assert "no such result" in findings["other-0123456789ab", ""]


def test_a_linked_folder_is_found(out: Path) -> None:
    tumour(out).rename(out.parent / "elsewhere")
    (out / "tumour-1").symlink_to(out.parent / "elsewhere")
    assert ("tumour-1", "") in found(out)


def test_what_the_log_says_must_be_so(out: Path) -> None:
    """A later ending of the same folder tells of other tiles."""
    folder = tumour(out)
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    ending = Ending(1, "DONE_WITH_GAPS", fingerprint="f", directory=folder.name)
    with AuditLog.open(out / "run" / "audit.jsonl") as log:
        slide_ended(log, ending, Work(1.0, 1, 1, 1, "0" * 64, "0" * 64))
    said = [each.what for each in verify_output(out) if each.directory == folder.name]
    assert len(said) == 5
    assert f"state is '{manifest['state']}' here and 'DONE_WITH_GAPS' in the audit log" in said


def test_a_changed_log_is_found_and_the_rest_is_checked(out: Path) -> None:
    path = out / "run" / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"tiles":', b'"tilez":', 1))
    (tumour(out) / "overlay.png").unlink()
    assert {("run", "audit.jsonl"), (tumour(out).name, "overlay.png")} <= set(found(out))
    path.write_bytes(b"garbage\n" + path.read_bytes())
    assert found(out) == [("run", "audit.jsonl"), (tumour(out).name, "overlay.png")]


def test_without_a_log_results_are_checked_all_the_same(out: Path) -> None:
    shutil.rmtree(out / "run")
    assert list(verify_output(out)) == []
    (tumour(out) / "overlay.png").unlink()
    assert found(out) == [(tumour(out).name, "overlay.png")]


def lose_a_row(record: dict[str, list[object]]) -> None:
    record["slides"].pop()


def list_twice(record: dict[str, list[object]]) -> None:
    record["slides"][0] = record["slides"][1]


def wrong_sum(record: dict[str, dict[str, int]]) -> None:
    record["summary"]["done"] += 1


def other_state(record: dict[str, list[dict[str, object]]]) -> None:
    record["slides"][-1] |= {"state": "FAILED"}
    record["summary"] |= {"rejected": 0, "failed": 1}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lose_a_row, "2 slides are listed, and 3 were asked for"),
        (list_twice, "listed twice"),
        (wrong_sum, "does not add up"),
        (other_state, "is FAILED E_NOT_SLIDE here and REJECTED E_NOT_SLIDE in the audit log"),
    ],
)
def test_a_worklist_that_lies_is_found(
    out: Path, change: Callable[[object], None], words: str
) -> None:
    path = out / "worklist.json"
    record = orjson.loads(path.read_bytes())
    change(record)
    write_json(path, record)
    said = [each.what for each in verify_output(out) if each.file == "worklist.json"]
    assert any(words in each for each in said), said


def test_a_worklist_for_spreadsheets_that_differs_is_found(out: Path) -> None:
    path = out / "worklist.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    rows[1][rows[0].index("score")] = "0.123"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (finding,) = verify_output(out)
    assert finding.what == "the row of rank 1 is not that of worklist.json"
    path.write_text("rank\r\n")
    assert found(out) == [("", "worklist.csv")]
    for name in ("worklist.csv", "worklist.json"):
        (out / name).unlink()
        assert ("", name) in found(out)


def test_unfinished_work_is_told(out: Path) -> None:
    (out / ".staging" / "000001").mkdir(parents=True)
    with AuditLog.open(out / "run" / "audit.jsonl") as log:
        slide_running(log, 0)
    findings = list(verify_output(out))
    assert {each.directory for each in findings} == {".staging", ""}
    assert all("slidetriage resume" in each.mend for each in findings)


def test_a_lost_mapping_file_is_told(out: Path) -> None:
    path = out / "run" / "private" / "slides.jsonl"
    place = ("run", "private/slides.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert found(out) == [place]
    path.write_bytes(b"garbage\n")
    assert found(out) == [place]
    path.unlink()
    assert found(out) == [place]


def test_a_strange_name_is_shown_on_one_line(out: Path) -> None:
    (tumour(out) / os.fsdecode(b"a\n\x1b\xff")).write_text("x")
    (finding,) = verify_output(out)
    assert finding.file == "a\\n\\x1b\\udcff"
    assert isinstance(finding, Finding)


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_of_no_run_is_refused(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "x"
    if make:
        (folder / "a").mkdir(parents=True)
    with pytest.raises(UsageError, match="--out"):
        verify_output(folder)
