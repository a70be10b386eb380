"""Nuclei of neighbouring windows: each counts once, whichever window saw it how."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.models.nuclei import Instances, NucleusTable, join_tables
from slidetriage.models.nuclei.measuring import OWN_NAMES, centroids
from slidetriage.tiling import TileBatch, TilePixels, Tiles, select_windows, window_grid
from slidetriage.workflows.cells.gathering import GatheredCells, gather_cells
from slidetriage.workflows.cells.looking import look_through
from slidetriage.workflows.cells.parts import (
    ACROSS,
    BEYOND,
    PARTS,
    WITHIN,
    Part,
    iterate_parts,
    write_part,
)
from slidetriage.wsi import Mpp, Slide, open_slide

MPP = Mpp(0.5, 0.5, "file")
EVERYWHERE = shapely.box(-1e6, -1e6, 1e6, 1e6)


def make_table(centres: list[tuple[float, float]], radius: float = 8.0) -> NucleusTable:
    """Round nuclei; their area is what is measured of them."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    points = np.concatenate([ring + centre for centre in centres] or [np.empty((0, 2))])
    values = {n: np.full(len(centres), 50 + i, np.float32) for i, n in enumerate(OWN_NAMES)}
    scores = np.linspace(0.5, 0.9, len(centres), dtype=np.float32)
    return NucleusTable(points, np.arange(len(centres) + 1) * 16, scores, values)


def keep(staging: Path, start: int, table: NucleusTable, place: int = ACROSS) -> None:
    (staging / PARTS).mkdir(parents=True, exist_ok=True)
    part = Part(table, np.full(len(table), place, np.uint8), np.empty(0, np.int32))
    write_part(staging, start, part)


def gathered(cells: GatheredCells) -> NucleusTable:
    return join_tables([table for table, _ in cells.chunks()])


def test_a_nucleus_seen_by_two_windows_counts_once_and_the_surer_is_kept(tmp_path: Path) -> None:
    keep(tmp_path, 0, make_table([(10, 10), (100, 100)]))
    keep(tmp_path, 16, make_table([(101, 100), (130, 100), (200, 200)]))
    cells = gather_cells(tmp_path, EVERYWHERE, MPP)
    # The second of the first window has the score 0.9, the first of the second window 0.5.
    np.testing.assert_allclose(cells.centres_px, [(10, 10), (100, 100), (130, 100), (200, 200)])
    table = gathered(cells)
    np.testing.assert_allclose(centroids(table.points, table.offsets), cells.centres_px)
    np.testing.assert_allclose(table.scores, [0.5, 0.9, 0.7, 0.9])


def test_a_nucleus_in_its_own_core_comes_before_one_beyond_that_is_surer(tmp_path: Path) -> None:
    keep(tmp_path, 0, make_table([(0, 0), (100, 100)]).choose(np.array([1])), BEYOND)
    keep(tmp_path, 16, make_table([(102, 100)]))
    cells = gather_cells(tmp_path, EVERYWHERE, MPP)
    np.testing.assert_allclose(cells.centres_px, [(102, 100)])


def test_touching_nuclei_are_two(tmp_path: Path) -> None:
    keep(tmp_path, 0, make_table([(100, 100)]))
    keep(tmp_path, 16, make_table([(113, 100)]))
    assert len(gather_cells(tmp_path, EVERYWHERE, MPP)) == 2


def test_of_three_in_a_row_the_outer_two_stay(tmp_path: Path) -> None:
    """The one in the middle is the worst, so it stands for neither of the others."""
    keep(tmp_path, 0, make_table([(0, 0), (108, 100)]).choose(np.array([1])))
    keep(tmp_path, 16, make_table([(100, 100)]))
    keep(tmp_path, 32, make_table([(0, 0), (92, 100)]).choose(np.array([1])))
    cells = gather_cells(tmp_path, EVERYWHERE, MPP)
    np.testing.assert_allclose(sorted(cells.centres_px[:, 0]), [92, 108])


def test_nuclei_elsewhere_do_not_count(tmp_path: Path) -> None:
    keep(tmp_path, 0, make_table([(10, 10), (100, 100)]), WITHIN)
    cells = gather_cells(tmp_path, shapely.box(50, 50, 150, 150), MPP)
    np.testing.assert_allclose(cells.centres_px, [(100, 100)])
    assert len(gathered(cells)) == len(cells.assessment) == 1


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_none_at_all(tmp_path: Path, parts: int) -> None:
    (tmp_path / PARTS).mkdir()
    for number in range(parts):
        keep(tmp_path, number, join_tables([]))
    cells = gather_cells(tmp_path, EVERYWHERE, MPP)
    assert len(cells) == len(cells.assessment) == 0
    assert sum(len(table) for table, _ in cells.chunks()) == 0


class Painted:
    """Finds what is painted: every pixel says by its first two channels which nucleus it is of."""

    name, identity, mpp, margin_px = "painted", "painted", 0.5, 32

    def detect(self, images: np.ndarray) -> list[Instances]:
        found = []
        for image in images:
            number = image[..., 0].astype(np.int64) * 256 + image[..., 1]
            kinds, labels = np.unique(number, return_inverse=True)
            assert kinds[0] == 0
            labels = labels.reshape(number.shape).astype(np.int32)
            found.append(Instances(labels, np.full(len(kinds) - 1, 0.8, np.float32)))
        return found


@given(window_px=st.sampled_from([128, 160, 256, 400]), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=8)
def test_windows_of_any_size_find_the_same(
    tmp_path_factory: pytest.TempPathFactory, bounded: Slide, window_px: int, seed: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("staging")
    (tmp_path / PARTS).mkdir()
    rng = np.random.default_rng(seed)
    picture = np.zeros((1024, 1024, 3), np.uint8)
    y, x = np.mgrid[:1024, :1024]
    centres = rng.uniform(15, 1009, (120, 2))
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) + 1e3 * np.eye(120)
    centres = centres[gaps.min(1) > 30]
    for number, (cx, cy) in enumerate(centres, start=1):
        inside = (x - cx) ** 2 + (y - cy) ** 2 < 11**2
        picture[inside, 0], picture[inside, 1] = number // 256, number % 256
    grid = window_grid(bounded, window_px=window_px, margin_px=32, mpp=0.5)
    windows = select_windows(grid, shapely.box(0, 0, 1024, 1024))
    padded = np.pad(picture, ((0, 512), (0, 512), (0, 0)))
    for start in range(0, len(windows), 5):
        batch = TileBatch(bounded, windows[start : start + 5], start)
        look_through(batch, cut(padded, batch.tiles), Painted(), tmp_path)
    cells = gather_cells(tmp_path, EVERYWHERE, MPP)
    assert len(cells) == len(centres)
    found = cells.centres_px[np.lexsort(cells.centres_px.T)]
    expected = (centres + 0.5)[np.lexsort(centres.T)]
    np.testing.assert_allclose(found, expected, atol=0.6)


def cut(picture: np.ndarray, tiles: Tiles) -> TilePixels:
    """The windows of a picture, as a reader would give them."""
    side = tiles.grid.tile_px
    corners = tiles.boxes[:, :2].astype(int)
    images = np.stack([picture[y : y + side, x : x + side] for x, y in corners])
    count = len(tiles)
    return TilePixels(images, np.ones(count, np.float32), np.ones(count, np.bool_), "")


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    from tiny_slides import gradient, write_tiff

    path = tmp_path_factory.mktemp("slide") / "grey.tif"
    return open_slide(write_tiff(path, gradient(1024, 1024)))


def test_windows_that_cannot_be_read_are_named(tmp_path: Path, bounded: Slide) -> None:
    (tmp_path / PARTS).mkdir()
    grid = window_grid(bounded, window_px=256, margin_px=32, mpp=0.5)
    windows = select_windows(grid, shapely.box(0, 0, 1024, 1024))
    batch = TileBatch(bounded, windows[4:7], 4)
    pixels = cut(np.zeros((1536, 1536, 3), np.uint8), batch.tiles)
    pixels.readable[1] = False
    assert look_through(batch, pixels, Painted(), tmp_path) == 1
    (part,) = iterate_parts(tmp_path)
    assert part.missing.tolist() == [5]
    assert gather_cells(tmp_path, EVERYWHERE, MPP).missing.tolist() == [5]
