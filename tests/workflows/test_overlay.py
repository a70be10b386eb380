"""The picture of the result, looked at pixel by pixel where it matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slidetriage.workflows.overlay import OverlayCaption, draw_overlay
from slidetriage.workflows.regions import find_regions
from slidetriage.workflows.results import ScoredTiles
from slidetriage.workflows.sheet import lay_out, round_down

Make = Callable[..., ScoredTiles]
PINK = (230, 170, 200)
CAPTION = OverlayCaption("slide-1", "IDC", 0.93, 0.5, "flag", "idc 1.0")


def draw(path: Path, tiles: ScoredTiles, caption: OverlayCaption = CAPTION) -> np.ndarray:
    bounds = tiles.tiles.grid.bounds
    thumbnail = np.full((60, 80, 3), PINK, np.uint8)
    regions = find_regions(tiles, caption.threshold)
    draw_overlay(
        path, thumbnail=thumbnail, shown=bounds, scored=tiles, regions=regions, caption=caption
    )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def panels(tiles: ScoredTiles, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of the clean and of the heated panel."""
    grid = tiles.tiles.grid
    sheet = lay_out(grid.bounds.width * grid.mpp_x / 1e3, grid.bounds.height * grid.mpp_y / 1e3)
    dpi = picture.shape[1] / sheet.width
    found = []
    for x, y, width, height in (sheet.clean, sheet.heated):
        top = sheet.height - y - height
        rows = slice(round(top * dpi), round((top + height) * dpi))
        found.append(picture[rows, round(x * dpi) : round((x + width) * dpi)])
    return found[0], found[1]


def cell(panel: np.ndarray, row: int, column: int, shape: tuple[int, int]) -> np.ndarray:
    """The inner half of a cell, clear of outlines."""
    height, width = panel.shape[0] / shape[0], panel.shape[1] / shape[1]
    rows = slice(int((row + 0.25) * height), int((row + 0.75) * height))
    return panel[rows, int((column + 0.25) * width) : int((column + 0.75) * width)]


def test_each_cell_shows_what_is_known_of_it(scored: Make, tmp_path: Path):
    lost = np.zeros((3, 4), bool)
    lost[0, 3] = True
    probability = np.array([[0.95, 0.05, 0.55, 0], [0.3, np.nan, 0.05, 0.05], [0.0] * 4])
    tiles = scored(probability, unread=lost)
    clean, heated = panels(tiles, draw(tmp_path / "o.png", tiles))
    inner = clean[5:-5, 5:-5]
    assert (inner == PINK).all()

    def changed(row: int, column: int) -> float:
        return float(np.abs(cell(heated, row, column, (3, 4)) - PINK).mean())

    assert changed(1, 1) == 0  # no tissue
    assert changed(0, 1) == changed(2, 2) == 0  # nothing to see: the tissue stays clear
    assert 0 < changed(1, 0) < changed(0, 2)  # the higher, the denser
    gap = cell(heated, 0, 3, (3, 4))
    assert gap.std() > 20  # hatched
    high = cell(heated, 0, 0, (3, 4)).mean(axis=(0, 1))
    assert high[1] > high[2] + 80  # the yellow end of viridis over pink


def test_regions_are_outlined_in_black_on_white(scored: Make, tmp_path: Path):
    tiles = scored(np.array([[0.0, 0.0, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 0.0]]))
    _, heated = panels(tiles, draw(tmp_path / "o.png", tiles))
    middle = heated[heated.shape[0] // 2]
    near = middle[heated.shape[1] // 4 : heated.shape[1] * 5 // 12]
    assert (near.sum(axis=1) < 60).any()
    assert (near.sum(axis=1) > 740).any()


@pytest.mark.parametrize(
    ("probability", "lost"), [(np.full((3, 3), np.nan), False), (np.full((3, 3), 0.5), True)]
)
def test_a_slide_without_any_score_says_so(
    scored: Make, tmp_path: Path, probability: np.ndarray, lost: bool
):
    tiles = scored(probability, unread=np.full((3, 3), lost))
    caption = replace(CAPTION, score=None, verdict="needs eyes")
    clean, heated = panels(tiles, draw(tmp_path / "o.png", tiles, caption))
    centre = heated[heated.shape[0] * 45 // 100 : heated.shape[0] * 55 // 100]
    assert (centre[:, 100:-100].sum(axis=2) < 120).any()  # words
    assert (clean[5:-5, 5:-5] == PINK).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (40, 2), (1, 30)])
@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.25, 0.5)])
def test_any_shape_of_slide_is_drawn_in_its_physical_proportions(
    scored: Make, tmp_path: Path, shape: tuple[int, int], mpp: tuple[float, float]
):
    tiles = scored(np.full(shape, 0.1), mpp=mpp)
    picture = draw(tmp_path / "o.png", tiles)
    clean, _ = panels(tiles, picture)
    assert (clean[4:-4, 4:-4] == PINK).all()
    # Tiles are square in micrometres whatever the pixels are.
    ratio = clean.shape[1] / clean.shape[0]
    assert ratio == pytest.approx(shape[1] / shape[0], rel=0.03)
    assert max(picture.shape) <= 2200


def test_the_same_result_gives_the_same_bytes_whatever_the_user_configured(
    scored: Make, tmp_path: Path
):
    tiles = scored(np.random.default_rng(0).random((5, 6)))
    draw(tmp_path / "a.png", tiles)
    mine = {"savefig.bbox": "tight", "savefig.dpi": 50, "font.size": 20, "text.usetex": True}
    with matplotlib.rc_context(mine):
        draw(tmp_path / "b.png", tiles)
        assert {name: matplotlib.rcParams[name] for name in mine} == mine
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert set(image.info) <= {"dpi"}  # no date, no software


def test_the_threshold_and_the_words_are_drawn(scored: Make, tmp_path: Path):
    tiles = scored(np.array([[0.1, 0.2]]))
    seen = [draw(tmp_path / "o.png", tiles)]
    for change in (
        {"threshold": 0.7},
        {"slide_id": "slide-2"},
        {"score": 0.94},
        {"score": None},
        {"verdict": "clear"},
        {"model": "idc 1.1"},
        {"class_name": "Tumor"},
    ):
        seen.append(draw(tmp_path / "o.png", tiles, replace(CAPTION, **change)))
    assert len({picture.tobytes() for picture in seen}) == len(seen)


@pytest.mark.parametrize("name", ["$x_1^{2$ \\frac", "病理 切片", "a\nb\tc", "long " * 80, ""])
def test_any_name_can_be_drawn_and_stays_on_the_sheet(scored: Make, tmp_path: Path, name: str):
    tiles = scored(np.array([[0.9]]))
    caption = replace(CAPTION, slide_id=name, class_name=name[:12], verdict=name)
    picture = draw(tmp_path / "o.png", tiles, caption)
    assert (picture[:160, -20:] == 255).all()


def test_only_the_bounds_are_shown(scored: Make, tmp_path: Path):
    """A thumbnail of more than the bounds is cut, not squeezed."""
    tiles = scored(np.full((4, 4), 0.1), origin=(400, 400))
    bounds = tiles.tiles.grid.bounds
    whole = replace(bounds, x=0, y=0, width=800, height=800)
    thumbnail = np.zeros((80, 80, 3), np.uint8)
    thumbnail[40:, 40:] = PINK
    draw_overlay(
        tmp_path / "o.png",
        thumbnail=thumbnail, shown=whole, scored=tiles, regions=(), caption=CAPTION,
    )  # fmt: skip
    with Image.open(tmp_path / "o.png") as image:
        clean, heated = panels(tiles, np.asarray(image.convert("RGB")).astype(int))
    for panel in (clean, heated):
        assert (panel[12:-12, 12:-12] == PINK).all()


@given(width=st.floats(1e-3, 1e3), height=st.floats(1e-3, 1e3))
def test_panels_share_a_scale_and_fit_the_sheet(width: float, height: float):
    sheet = lay_out(width, height)
    assert 3 < sheet.height <= 8
    assert 7 < sheet.width <= 13
    for x, y, w, h in (sheet.clean, sheet.heated, sheet.bar):
        assert x >= 0
        assert y >= 0
        assert x + w <= sheet.width + 1e-9
        assert y + h <= sheet.height + 1e-9
    for _, _, w, h in (sheet.clean, sheet.heated):
        assert w * sheet.mm_per_inch == pytest.approx(width)
        assert h * sheet.mm_per_inch == pytest.approx(height)
    (x, y, w, h), (other_x, other_y, _, _) = sheet.clean, sheet.heated
    assert other_x >= x + w or other_y + h <= y + 1e-9


@given(st.floats(1e-6, 1e6))
def test_scale_bars_are_of_a_round_length(length: float):
    rounded = round_down(length)
    assert rounded <= length * (1 + 1e-9) < rounded * 2.5 * (1 + 1e-8)
    assert f"{rounded:.0e}"[0] in "125"
    assert float(f"{rounded:.0e}") == rounded
