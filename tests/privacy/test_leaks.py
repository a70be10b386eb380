"""No identity leaves a run: every byte it wrote or said is searched for what was planted."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from privacy.canaries import PLACES, TOLD_BY_DEFAULT, Canaries
from privacy.conftest import Left, Run
from privacy.scanner import FOUND_ABOVE, Hit, Scanner, encodings, likeness, pictures

SERIAL = ("--engine", "serial", "--keep-features", "--gz", "--json")
DASK = ("--engine", "dask", "--workers", "1")
PRIVATE = Path("run") / "private"


def hits_in(left: Left, canaries: Canaries) -> list[Hit]:
    """Every token in what a run left, but for what lies in its private folder."""
    scanner = Scanner(canaries.tokens)
    hits = [hit for hit in scanner.search_tree(left.out) if not hit.where.startswith(str(PRIVATE))]
    for name, content in left.told.items():
        hits += scanner.search(content, name)
    return hits


@pytest.fixture(scope="module")
def plain(run: Run) -> Left:
    return run(*SERIAL)


@pytest.fixture(scope="module")
def hidden(run: Run) -> Left:
    return run(*SERIAL, "--deidentify")


def test_the_slides_are_what_they_should_be(plain: Left, canaries: Canaries) -> None:
    assert plain.code == 3, plain.told["stderr"].decode()
    codes = {row["file"]: row["code"] for row in json.loads(plain.told["stdout"])["slides"]}
    bad = canaries.tokens["file of a bad slide"]
    assert codes == {
        f"{canaries.tokens['file of a good slide']}.svs": None,
        "tagged.tif": None,
        "plain.ome.tif": None,
        "instance.dcm": None,
        "scale.ome.tif": "E_BAD_MPP",
        "stated.tif": "E_BAD_MPP",
        f"{bad}.svs": "E_NOT_SLIDE",
        f"{bad}-short.svs": "E_TRUNCATED",
        f"{bad}-damaged.svs": "E_TOO_MANY_GAPS",
        f"{bad}-hashed.svs": "E_HASH",
        f"{canaries.tokens['file that is missing']}.svs": "E_NOT_FOUND",
    }


def test_by_default_only_the_names_of_files_are_told(plain: Left, canaries: Canaries) -> None:
    hits = hits_in(plain, canaries)
    assert [hit for hit in hits if hit.place not in TOLD_BY_DEFAULT] == []
    assert {hit.place for hit in hits} == TOLD_BY_DEFAULT, "the run did say something"
    assert {hit.encoding for hit in hits} <= {"raw", "URL"}, "and no hash of a name"


def test_a_deidentified_run_tells_nothing(hidden: Left, plain: Left, canaries: Canaries) -> None:
    assert hits_in(hidden, canaries) == []
    assert hidden.code == plain.code
    asked, given = (json.loads(left.told["stdout"])["slides"] for left in (plain, hidden))
    assert sorted(str(row["code"]) for row in given) == sorted(str(row["code"]) for row in asked)
    assert {row["file"] for row in given} == {None}
    for row in given:
        assert row["slide_id"].startswith("slide-")
        assert row["code"] is None or row["reason"], "what went wrong is said all the same"


def test_the_numbers_are_those_of_a_run_with_names(hidden: Left, plain: Left) -> None:
    def scores(left: Left) -> list[tuple[float, int, float]]:
        rows = json.loads(left.told["stdout"])["slides"]
        return sorted(
            (row["score"], row["tiles"], row["tissue_mm2"]) for row in rows if row["score"]
        )

    assert scores(hidden) == scores(plain) != []


def test_no_process_of_a_cluster_tells_anything(run: Run, canaries: Canaries) -> None:
    left = run(*DASK, "--deidentify", manifest=canaries.short_manifest)
    assert left.code == 3, left.told["stderr"].decode()
    assert left.told["keys"].count(b"PlanStep") >= 3
    assert left.told["command lines"], "its processes were seen"
    assert hits_in(left, canaries) == []


def test_neither_label_nor_macro_is_in_a_picture(hidden: Left, canaries: Canaries) -> None:
    seen = {
        name: likeness(picture, canaries.pattern)
        for name, picture in pictures(hidden.out)
        if min(picture.shape) >= 24
    }
    assert len([name for name in seen if name.endswith("overlay.png")]) == 4
    assert max(seen.values()) < FOUND_ABOVE, seen


def test_a_run_that_leaks_is_found_out(hidden: Left, canaries: Canaries, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(hidden.out, out)
    folder = next(out.glob("slide-*"))
    told = dict(hidden.told)
    ways = sorted(encodings("x"))
    for number, place in enumerate(PLACES):
        token = canaries.tokens[place]
        leak = b"was: " + encodings(token)[ways[number % len(ways)]][0] + b" there"
        _leak(number % 8, leak, folder, told, number)
    found = {hit.place for hit in hits_in(Left(0, out, told), canaries)}
    assert found == set(PLACES)
    Image.fromarray(canaries.pattern).resize((150, 150)).save(folder / "label.png")
    label = {name: picture for name, picture in pictures(out) if name.endswith("label.png")}
    assert [likeness(each, canaries.pattern) > FOUND_ABOVE for each in label.values()] == [True]


def _leak(way: int, leak: bytes, folder: Path, told: dict[str, bytes], number: int) -> None:
    """Put a token where a careless program may: files, arrays, pictures, tables, what is said."""
    name = folder / f"leak{number}"
    if way == 0:
        values = np.frombuffer(leak + bytes(-len(leak) % 4), np.float32)
        zarr.create_array(store=name, data=values)
    elif way == 1:
        info = PngInfo()
        info.add_text("Comment", leak.decode("latin-1"), zip=True)
        Image.open(folder / "overlay.png").save(name.with_suffix(".png"), pnginfo=info)
    elif way == 2:
        name.write_bytes(gzip.compress(leak))
    elif way == 3:
        with sqlite3.connect(name) as base:
            base.execute("create table t (x blob)")
            base.execute("insert into t values (?)", (leak,))
        base.close()
    elif way == 4:
        name.write_bytes(b'{"warnings": ["' + leak + b'"]}')
    elif way == 5:
        told["stderr"] += leak
    elif way == 6:
        told["keys"] += b"('read-" + leak + b"', 0)"
    else:
        told["command lines"] += b"worker\0--preload\0" + leak + b"\0"
