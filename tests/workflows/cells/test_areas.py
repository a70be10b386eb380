"""Regions that people and programs give: those that can be used are, and the rest says why not."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from slidetriage.tiling import TileGrid, Tiles
from slidetriage.workflows.cells.areas import AreaError, hash_given, read_given, unite
from slidetriage.workflows.geojson import GeoJsonFrame, write_annotations
from slidetriage.workflows.results import Region
from slidetriage.workflows.steps import SlidePlan
from slidetriage.wsi import Box, open_slide

SQUARE = shapely.box(100, 200, 300, 400)


@pytest.fixture
def plan(bounded_slide: Path) -> SlidePlan:
    """Of a slide of 1024 x 1024 px whose bounds begin at 256, 512."""
    slide = replace(open_slide(bounded_slide, mpp=0.5), bounds=Box(256, 512, 512, 256))
    grid = TileGrid.over(slide, tile_px=64, stride_px=64, mpp=0.5)
    none = np.empty(0, np.int32)
    tiles = Tiles(grid, none, none, none.astype(np.float32))
    return SlidePlan("bounded-0123", "0" * 64, "", "bounded-0123", slide, tiles, 1.0, ())


def feature(shape: shapely.Geometry, **properties: object) -> dict[str, Any]:
    geometry = json.loads(shapely.to_geojson(shape))
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write(path: Path, value: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return str(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: {"type": "FeatureCollection", "features": [f]},
        lambda f: [f],
        lambda f: f,
        lambda f: f["geometry"],
    ],
    ids=["collection", "list", "feature", "geometry"],
)
def test_every_form_that_qupath_writes_is_read(plan: SlidePlan, tmp_path: Path, wrap: Any) -> None:
    given = write(tmp_path / "r.geojson", wrap(feature(SQUARE)))
    (area,) = read_given(given, plan, cropped=True)
    assert area.shape.equals(shapely.box(356, 712, 556, 768)), "cut at the lower bound"
    assert area.name == "region 1"


def test_coordinates_begin_at_the_bounds_as_in_qupath(plan: SlidePlan, tmp_path: Path) -> None:
    given = write(tmp_path / "r.geojson", feature(shapely.box(10, 20, 50, 60), name="nest 3"))
    (cropped,) = read_given(given, plan, cropped=True)
    assert cropped.shape.bounds == (266, 532, 306, 572)
    assert cropped.name == "region 1", "names may be of persons"
    with pytest.raises(AreaError, match="outside the slide, which is 512 x 256 px"):
        read_given(given, plan, cropped=False)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("suffix", [".geojson", ".geojson.gz"])
def test_our_own_files_say_where_their_frame_begins(
    plan: SlidePlan, tmp_path: Path, crop: bool, suffix: str
) -> None:
    shape = shapely.box(300, 600, 400, 700)
    frame = GeoJsonFrame("bounded-0123", "Tumor", bounds_px=(256, 512), crop_to_bounds=crop)
    folder = tmp_path / "bounded-0123"
    folder.mkdir()
    write_annotations(folder / f"annotations{suffix}", [Region(shape, 1, 0.9, 0.9, 4)], frame)
    for cropped in (True, False):
        (area,) = read_given(str(tmp_path), plan, cropped=cropped)
        assert area.shape.equals(shape)


def test_a_run_that_flagged_nothing_gives_nothing(plan: SlidePlan, tmp_path: Path) -> None:
    frame = GeoJsonFrame("bounded-0123", "Tumor")
    write_annotations(tmp_path / "bounded-0123.geojson", [], frame)
    assert read_given(str(tmp_path), plan, cropped=True) == ()
    assert unite(()).is_empty


def test_only_annotations_with_an_area_count(plan: SlidePlan, tmp_path: Path) -> None:
    inside = shapely.box(10, 10, 20, 20)
    listed = [
        feature(inside, objectType="annotation"),
        feature(inside, objectType="detection"),
        feature(inside, objectType="tile"),
        feature(shapely.Point(5, 5)),
        feature(shapely.LineString([(0, 0), (5, 5)])),
        feature(shapely.MultiPolygon([inside, shapely.box(30, 30, 40, 40)])),
        "no feature",
    ]
    given = write(tmp_path / "r.json", {"type": "FeatureCollection", "features": listed})
    areas = read_given(given, plan, cropped=True)
    assert [area.shape.area for area in areas] == [100, 200]
    assert unite(areas).area == 200


def test_crossing_outlines_are_mended_and_the_edge_cuts(plan: SlidePlan, tmp_path: Path) -> None:
    bow = shapely.Polygon([(0, 0), (40, 40), (40, 0), (0, 40)])
    over = shapely.box(500, 200, 900, 900)
    given = write(tmp_path / "r.geojson", [feature(bow), feature(over)])
    first, second = read_given(given, plan, cropped=True)
    assert first.shape.is_valid
    assert first.shape.area == pytest.approx(800)
    assert second.shape.bounds == (756, 712, 768, 768)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "it is no GeoJSON"),
        ("[]", "there is no region in it"),
        ('{"type": "FeatureCollection", "features": 3}', "there is no region in it"),
        ('{"type": "Polygon"}', "there is no region in it"),
        ('{"type": "Feature", "geometry": {"type": "Polygon"}}', "its outline cannot be used"),
        (
            '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0]]]}}',
            "its outline cannot be used",
        ),
        (
            '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}}',
            "its outline is empty",
        ),
    ],
)
def test_what_cannot_be_used_says_why(
    plan: SlidePlan, tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "r.geojson"
    path.write_text(content)
    with pytest.raises(AreaError, match=said) as caught:
        read_given(str(path), plan, cropped=True)
    assert caught.value.code == "E_REGIONS"
    assert "r.geojson" in str(caught.value)


def test_a_slide_without_a_file_says_what_to_call_it(plan: SlidePlan, tmp_path: Path) -> None:
    write(tmp_path / "other.geojson", feature(SQUARE))
    with pytest.raises(AreaError, match=r"bounded\.geojson"):
        read_given(str(tmp_path), plan, cropped=True)
    packed = tmp_path / "bounded.geojson.gz"
    packed.write_bytes(b"no gzip")
    with pytest.raises(AreaError, match="cannot be read"):
        read_given(str(tmp_path), plan, cropped=True)
    packed.write_bytes(gzip.compress(json.dumps(feature(shapely.box(0, 0, 9, 9))).encode()))
    (area,) = read_given(str(tmp_path), plan, cropped=True)
    assert area.shape.area == 81


def test_the_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "one.geojson", tmp_path / "b" / "one.geojson"
    write(first, feature(SQUARE))
    write(second, feature(SQUARE))
    assert hash_given(str(first)) == hash_given(str(second))
    assert hash_given(str(first.parent)) == hash_given(str(second.parent))
    before = hash_given(str(first.parent))
    write(first.parent / ".hidden.geojson", 1)
    write(first.parent / "sub" / "tiles.geojson", 1)  # of a run: no regions
    assert hash_given(str(first.parent)) == before
    write(first.parent / "sub" / "annotations.geojson", feature(SQUARE))
    assert hash_given(str(first.parent)) != before
    with pytest.raises(AreaError, match="no such file or folder"):
        hash_given(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(AreaError, match="no regions in this folder"):
        hash_given(str(tmp_path / "empty"))
