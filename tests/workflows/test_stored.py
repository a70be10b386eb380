"""A run that was cut off is gone on with where it was: nothing that it had read is read twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from slidetriage import Resources, Settings, triage
from slidetriage.tiling import TileBatch, TileGrid, Tiles
from slidetriage.workflows.cells import station_part
from slidetriage.workflows.cells.looking import look_through
from slidetriage.workflows.driver import resume
from slidetriage.workflows.features import create_features, digest_features, write_features
from slidetriage.workflows.ledger import read_audit, verify_audit, verify_output
from slidetriage.workflows.observers import Silent
from slidetriage.workflows.publishing import STAGING
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import BatchReceipt
from slidetriage.workflows.stored import StoredBatches, origin_of
from slidetriage.wsi import Box, PhantomSpec, paint_phantom
from trees import tree

SERIAL = Resources("serial")
SMALL = Settings(batch_tiles=8)


class Stopped(Silent):
    """Cuts the run off once so many batches were read."""

    def __init__(self, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.error = after, error
        self.tiles: list[int] = []

    def read(self, receipt: BatchReceipt) -> None:
        self.tiles.append(receipt.tiles)
        self.left -= 1
        if self.left == 0:
            raise self.error("cut off")


def begun(out: Path) -> list[int]:
    """How many tiles were there already, each time that a slide was begun."""
    return [
        event["stored"]
        for event in read_audit(out / "run/audit.jsonl")
        if event["event"] == "slide_running"
    ]


def receipts(out: Path) -> dict[Path, int]:
    """What the one slide's batches left behind, and of how many tiles."""
    folder = out / STAGING / "000000" / "features.receipts"
    return {
        path: orjson.loads(path.read_bytes())["tiles"] for path in sorted(folder.glob("*.json"))
    }


def check_equal(out: Path, want: Path) -> None:
    """Two output folders are the same, and nothing is left over."""
    assert tree(out) == tree(want)
    assert not (out / STAGING).exists()
    assert verify_audit(out / "run/audit.jsonl").problem is None
    assert list(verify_output(out)) == []


@pytest.fixture(scope="module")
def undisturbed(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    triage(phantom, out, settings=SMALL, resources=SERIAL)
    return out


@pytest.fixture(scope="module")
def interrupted(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after four batches of 8 tiles; those under way may be stored too."""
    out = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        triage(phantom, out, settings=SMALL, resources=SERIAL, watcher=Stopped(4))
    assert len(receipts(out)) >= 4
    return out


@pytest.fixture
def cut_off(interrupted: Path, tmp_path: Path) -> Path:
    """The same, to be gone on with."""
    return shutil.copytree(interrupted, tmp_path / "out")


def test_an_interrupted_slide_goes_on_where_it_was(cut_off: Path, undisturbed: Path) -> None:
    stored = sum(receipts(cut_off).values())
    watcher = Stopped(10**6)
    resume(cut_off, watcher=watcher)
    planned = sum(watcher.tiles)
    assert begun(cut_off) == [0, stored]
    assert 32 <= stored < planned
    check_equal(cut_off, undisturbed)
    (manifest,) = cut_off.glob("*/manifest.json")
    assert f'"planned": {planned}' in manifest.read_text(), "what was stored counts as read"


def test_what_a_power_cut_damaged_is_read_again(cut_off: Path, undisturbed: Path) -> None:
    stored = receipts(cut_off)
    store = cut_off / STAGING / "000000" / "features.zarr"
    (store / "features" / "c" / "1" / "0").write_bytes(b"\0" * 40)
    (store / "coverage" / "c" / "2").unlink()
    resume(cut_off)
    assert begun(cut_off) == [0, sum(stored.values()) - 16]
    check_equal(cut_off, undisturbed)


def test_work_under_other_settings_is_begun_anew(cut_off: Path, phantom: Path) -> None:
    others = replace(SMALL, min_tissue=0.9)
    with pytest.raises(KeyboardInterrupt):
        triage(phantom, cut_off, settings=others, resources=SERIAL, watcher=Stopped(1))
    assert begun(cut_off) == [0, 0]


def test_features_that_a_killed_run_had_moved_are_made_anew(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        triage(
            phantom,
            tmp_path,
            settings=replace(SMALL, keep_features=True),
            resources=SERIAL,
            watcher=Stopped(1),
        )
    staging = tmp_path / STAGING / "000000"
    (staging / "content").mkdir()
    (staging / "features.zarr").rename(staging / "content" / "features.zarr")
    assert resume(tmp_path).counts["done"] == 1
    assert list(verify_output(tmp_path)) == []


def test_windows_of_nuclei_are_not_looked_through_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, out, want = tmp_path / "fine.tif", tmp_path / "out", tmp_path / "want"
    paint_phantom(slide, PhantomSpec(width_mm=0.9, height_mm=0.7, mpp=0.5, seed=1))
    settings = Settings(
        cells=CellSettings(where="tissue", detector="classical", window_px=512, margin_um=0)
    )
    looked: list[int] = []

    def look(batch: TileBatch, *others: Any) -> int:
        looked.append(batch.start)
        return look_through(batch, *others)

    monkeypatch.setattr(station_part, "look_through", look)
    with pytest.raises(KeyboardInterrupt):
        triage(slide, out, settings=settings, resources=SERIAL, watcher=Stopped(1))
    folder = out / STAGING / "000000" / "cells.receipts"
    stored = sorted(int(path.stem) for path in folder.glob("*.json"))
    assert stored
    (folder / f"{stored.pop():08d}.json").unlink()
    looked.clear()
    resume(out)
    assert sorted(looked) == sorted({0, 16} - set(stored))
    triage(slide, want, settings=settings, resources=SERIAL)
    check_equal(out, want)


def a_receipt(error: str = "") -> BatchReceipt:
    return BatchReceipt("slide", 16, 1, error, "torch float32")


def test_a_receipt_counts_while_its_batch_has_its_hash(tmp_path: Path) -> None:
    stored = StoredBatches(tmp_path / "features.zarr")
    stored.keep("one", stored.content.mkdir)
    stored.note(0, a_receipt(), "a")
    stored.note(16, a_receipt(), "b")
    stored.note(32, a_receipt("a tile could not be read"), "c")
    found = stored.recall("slide", lambda start, tiles: {0: "a", 16: "x"}[start])
    assert [(each.start, each.receipt) for each in found] == [(0, a_receipt())]
    stored.keep("one", pytest.fail)
    stored.keep("two", stored.content.mkdir)
    assert stored.recall("slide", lambda start, tiles: "a") == ()


@pytest.fixture
def features(tmp_path: Path) -> tuple[StoredBatches, Callable[[int, int], str]]:
    """Three batches of four tiles."""
    path = tmp_path / "features.zarr"
    stored = StoredBatches(path)
    stored.keep("one", lambda: create_features(path, tiles=12, dimension=3, batch=4))
    for start in (0, 4, 8):
        values = np.full((4, 3), start, np.float32)
        digest = write_features(path, start, values, values[:, 0])
        stored.note(start, replace(a_receipt(), tiles=4), digest)
    return stored, partial(digest_features, path)


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None], ids=["empty", "zeros", "lost"])
@pytest.mark.parametrize("file", ["features/c/1/0", "coverage/c/1", "receipt"])
def test_a_damaged_batch_counts_for_nothing(
    features: tuple[StoredBatches, Callable[[int, int], str]], file: str, damage: bytes | None
) -> None:
    stored, digest = features
    assert [each.start for each in stored.recall("slide", digest)] == [0, 4, 8]
    path = stored.content / file
    if file == "receipt":
        path = stored.content.with_name("features.receipts") / "00000004.json"
    assert path.is_file()
    path.unlink() if damage is None else path.write_bytes(damage)
    assert [each.start for each in stored.recall("slide", digest)] == [0, 8]


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None], ids=["empty", "zeros", "lost"])
@pytest.mark.parametrize("file", ["zarr.json", "features/zarr.json"])
def test_a_store_that_cannot_be_opened_is_made_anew(
    features: tuple[StoredBatches, Callable[[int, int], str]], file: str, damage: bytes | None
) -> None:
    stored, digest = features
    path = stored.content / file
    path.unlink() if damage is None else path.write_bytes(damage)
    made: list[str] = []
    stored.keep("one", lambda: made.append("made"), usable=lambda: digest(0, 0))
    assert made == ["made"]
    assert stored.recall("slide", digest) == ()


def test_content_that_was_not_made_whole_is_made_anew(tmp_path: Path) -> None:
    stored = StoredBatches(tmp_path / "features.zarr")

    def die() -> None:
        stored.content.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored.keep("one", die)
    made: list[str] = []

    def make() -> None:
        stored.content.mkdir()
        made.append("made")

    stored.keep("one", make)
    assert made == ["made"]


@pytest.mark.parametrize(
    "change",
    [
        lambda tiles: Tiles(tiles.grid, tiles.rows + 1, tiles.columns, tiles.tissue),
        lambda tiles: Tiles(tiles.grid, tiles.rows, tiles.columns[::-1].copy(), tiles.tissue),
        lambda tiles: Tiles(tiles.grid, tiles.rows, tiles.columns, tiles.tissue / 2),
        lambda tiles: tiles[:3],
        lambda tiles: replace(tiles, grid=replace(tiles.grid, mpp=2.0)),
    ],
)
def test_an_origin_is_of_these_tiles_alone(change: Callable[[Tiles], Tiles]) -> None:
    grid = TileGrid(Box(0, 0, 1000, 800), 0.5, 0.5, tile_px=50, stride_px=50, mpp=4)
    index = np.arange(4, dtype=np.int32)
    tiles = Tiles(grid, index, index, np.ones(4, np.float32))
    assert origin_of("key", tiles, 64) == origin_of("key", tiles[:], 64)
    others = {origin_of("key", change(tiles), 64), origin_of("yek", tiles, 64)}
    others.add(origin_of("key", tiles, 32))
    assert len(others) == 3
    assert origin_of("key", tiles, 64) not in others
