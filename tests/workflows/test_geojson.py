"""GeoJSON that QuPath opens, and a check that says no wherever QuPath would."""

from __future__ import annotations

import copy
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slidetriage.errors import UsageError
from slidetriage.workflows.geojson import GeoJsonFrame, write_annotations, write_tiles
from slidetriage.workflows.qupath_schema import check_geojson, load_schema
from slidetriage.workflows.regions import find_regions
from slidetriage.workflows.results import Region, ScoredTiles

Make = Callable[..., ScoredTiles]
FRAME = GeoJsonFrame("slide-1", "IDC", metadata={"model": "idc 1.0"})
LOST = np.zeros((4, 5), bool)
LOST[1, 1] = True


def region(shape: shapely.Geometry, probability: float = 0.9) -> Region:
    return Region(shape, 0.25, probability, 0.95, 3)


@pytest.fixture
def tiles(scored: Make) -> ScoredTiles:
    probability = np.random.default_rng(3).random((4, 5))
    probability[3, 3] = np.nan
    return scored(probability, origin=(1000, 500), mpp=(0.2527, 0.26), unread=LOST)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


# What is written


def test_regions_become_locked_annotations(tiles: ScoredTiles, tmp_path: Path):
    regions = find_regions(tiles, 0.5)
    path = tmp_path / "regions.geojson"
    assert write_annotations(path, regions, FRAME) == len(regions)
    assert check_geojson(path) == []
    document = load(path)
    assert document["metadata"]["frame"] == "openslide-bounds"
    for one, feature in zip(regions, document["features"], strict=True):
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["isLocked"] is True
        assert properties["classification"] == {"name": "IDC", "color": [200, 0, 0]}
        assert properties["metadata"]["model"] == "idc 1.0"
        assert "Research Use Only" in properties["metadata"]["note"]
        assert properties["measurements"] == {
            "Area mm^2": one.area_mm2,
            "IDC probability mean": one.mean_probability,
            "IDC probability max": one.max_probability,
            "Tiles": one.tile_count,
        }
        assert shapely.geometry.shape(feature["geometry"]).equals(one.shape)


def test_tiles_carry_their_measurements_and_gaps_are_seen(tiles: ScoredTiles, tmp_path: Path):
    path = tmp_path / "tiles.geojson"
    assert write_tiles(path, tiles, FRAME) == len(tiles.tiles) == 19
    assert check_geojson(path) == []
    unreadable = 0
    for index, feature in enumerate(load(path)["features"]):
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        box = shapely.geometry.shape(feature["geometry"]).bounds
        assert box == tuple(tiles.cells_px[index])
        if not tiles.read[index]:
            unreadable += 1
            assert properties["classification"]["name"] == "Unreadable"
            assert set(properties["measurements"]) == {"Tissue"}
            continue
        assert "classification" not in properties
        written = properties["measurements"]
        for name, values in {
            "IDC probability": tiles.probability,
            "Attention": tiles.attention,
            "Coverage": tiles.coverage,
            "Tissue": tiles.tiles.tissue,
        }.items():
            assert np.float32(written[name]) == values[index]
    assert unreadable == 1


def test_novelty_is_measured_where_the_model_knows_it(
    scored: Callable[..., ScoredTiles], tmp_path: Path
):
    tiles = scored(np.array([[0.1, 0.9], [0.4, np.nan]]), novelty=True)
    write_tiles(tmp_path / "tiles.geojson", tiles, FRAME)
    assert check_geojson(tmp_path / "tiles.geojson") == []
    measured = [
        f["properties"]["measurements"] for f in load(tmp_path / "tiles.geojson")["features"]
    ]
    assert [np.float32(m["Novelty"]) for m in measured] == pytest.approx([1.1, 1.9, 1.4])


def test_both_files_are_in_the_frame_of_the_bounds_unless_told(tiles: ScoredTiles, tmp_path: Path):
    found = {}
    for crop in (True, False):
        frame = GeoJsonFrame("s", "IDC", bounds_px=(1000, 500), crop_to_bounds=crop)
        write_tiles(tmp_path / "t.geojson", tiles, frame)
        write_annotations(tmp_path / "r.geojson", find_regions(tiles, 0.0), frame)
        for name in ("t.geojson", "r.geojson"):
            document = load(tmp_path / name)
            first = shapely.geometry.shape(document["features"][0]["geometry"]).bounds
            found[name, crop] = first[:2], document["metadata"]["frame"]
    assert found == {
        ("t.geojson", True): ((0, 0), "openslide-bounds"),
        ("r.geojson", True): ((0, 0), "openslide-bounds"),
        ("t.geojson", False): ((1000, 500), "level-0"),
        ("r.geojson", False): ((1000, 500), "level-0"),
    }


@pytest.mark.parametrize("suffix", [".geojson", ".geojson.gz"])
def test_the_same_objects_give_the_same_bytes(tiles: ScoredTiles, tmp_path: Path, suffix: str):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tiles(tmp_path / folder / f"t{suffix}", tiles, FRAME)
    one, two = ((tmp_path / folder / f"t{suffix}").read_bytes() for folder in "ab")
    assert one == two
    assert check_geojson(tmp_path / "a" / f"t{suffix}") == []
    if suffix.endswith(".gz"):
        plain = tmp_path / "t.geojson"
        write_tiles(plain, tiles, FRAME)
        assert gzip.decompress(one) == plain.read_bytes()
        assert one[3:8] == bytes(5)  # RFC 1952: no name in the header, and no time


def test_one_feature_a_line(tiles: ScoredTiles, tmp_path: Path):
    write_tiles(tmp_path / "t.geojson", tiles, FRAME)
    lines = (tmp_path / "t.geojson").read_text().splitlines()
    features = [json.loads(line.rstrip(",")) for line in lines[1:-1]]
    assert len(features) == 19
    assert {feature["type"] for feature in features} == {"Feature"}


def test_identifiers_follow_from_slide_kind_and_shape(tiles: ScoredTiles, tmp_path: Path):
    def identifiers(slide_id: str, kind: str) -> list[str]:
        path, frame = tmp_path / "x.geojson", GeoJsonFrame(slide_id, "IDC")
        if kind == "tile":
            write_tiles(path, tiles, frame)
        else:
            cells = [region(shapely.box(*cell)) for cell in tiles.cells_px]
            write_annotations(path, cells, frame)
        return [feature["id"] for feature in load(path)["features"]]

    sets = [identifiers(s, k) for s in ("one", "two") for k in ("tile", "annotation")]
    assert identifiers("one", "tile") == sets[0]
    assert len({identifier for found in sets for identifier in found}) == sum(map(len, sets))
    assert all(UUID(identifier).version == 5 for found in sets for identifier in found)


def test_tiles_far_from_the_corner_keep_different_identifiers(scored: Make, tmp_path: Path):
    far = scored(np.full((9, 9), 0.5), origin=(5_000_000, 5_000_000), tile_px=1, stride_px=1)
    write_tiles(tmp_path / "t.geojson", far, FRAME)
    assert check_geojson(tmp_path / "t.geojson") == []


def test_no_region_and_no_tile_are_an_empty_collection(scored: Make, tmp_path: Path):
    assert write_annotations(tmp_path / "r.geojson", (), FRAME) == 0
    assert write_tiles(tmp_path / "t.geojson", scored(np.full((2, 2), np.nan)), FRAME) == 0
    for name in ("r.geojson", "t.geojson"):
        assert check_geojson(tmp_path / name) == []
        assert load(tmp_path / name)["features"] == []


@pytest.mark.parametrize(
    ("given_name", "written"),
    [
        ("IDC", "IDC"),
        ("Tumor: Positive", "Tumor Positive"),
        ("a\nb\r\n c", "a b c"),
        (" :grade 3: ", "grade 3"),
        ("浸潤", "浸潤"),
    ],
)
def test_class_names_are_made_safe(tmp_path: Path, given_name: str, written: str):
    path = tmp_path / "r.geojson"
    write_annotations(path, [region(shapely.box(0, 0, 9, 9))], GeoJsonFrame("s", given_name))
    assert check_geojson(path) == []
    assert load(path)["features"][0]["properties"]["classification"]["name"] == written


@pytest.mark.parametrize("name", ["", " ", ":", "\n:"])
def test_a_class_without_a_name_is_refused(tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="no name"):
        write_annotations(
            tmp_path / "r.geojson", [region(shapely.box(0, 0, 9, 9))], GeoJsonFrame("s", name)
        )


def test_nan_measurements_are_left_out(tmp_path: Path):
    path = tmp_path / "r.geojson"
    write_annotations(path, [region(shapely.box(0, 0, 9, 9), float("nan"))], FRAME)
    assert check_geojson(path) == []
    measurements = load(path)["features"][0]["properties"]["measurements"]
    assert "IDC probability mean" not in measurements
    assert "IDC probability max" in measurements


@pytest.mark.parametrize(
    "wkt",
    [
        "POLYGON ((0 0, 10 10, 10 0, 0 10, 0 0))",
        "MULTIPOLYGON (((0 0, 10 0, 10 10, 0 10, 0 0)), ((5 5, 15 5, 15 15, 5 15, 5 5)))",
        "POLYGON ((0 0, 10 0, 10 10, 0 10, 0 0), (20 20, 25 20, 25 25, 20 20))",
        "POLYGON ((0 0, 10 0, 10 0.001, 0.001 0.001, 0.001 10, 0 10, 0 0))",
        "POLYGON ((0 0, 10.004 0, 10.006 5, 9.9951 5.0049, 10 10, 0 10, 0 0))",
    ],
)
def test_whatever_the_shape_the_file_is_valid(tmp_path: Path, wkt: str):
    path = tmp_path / "r.geojson"
    write_annotations(path, [region(shapely.from_wkt(wkt))], FRAME)
    assert check_geojson(path) == []


@settings(max_examples=60, deadline=None)
@given(
    points=arrays(float, st.tuples(st.integers(4, 12), st.just(2)), elements=st.floats(0, 5)),
    origin=st.tuples(st.floats(0, 3), st.floats(0, 3)),
)
def test_any_polygon_becomes_a_valid_file(points, origin, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.geojson"
    frame = GeoJsonFrame("s", "IDC", bounds_px=origin)
    write_annotations(path, [region(shapely.Polygon(points))], frame)
    assert check_geojson(path) == []


# What is refused


def sound() -> dict[str, Any]:
    """A collection of one region with a hole and one tile, without fault."""
    shell = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
    hole = [[10, 10], [10, 20], [20, 20], [20, 10], [10, 10]]
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": "0f8fad5b-d9cb-569f-a165-70867728950e",
                "geometry": {"type": "Polygon", "coordinates": [shell, hole]},
                "properties": {
                    "objectType": "annotation",
                    "name": "region",
                    "classification": {"name": "IDC", "color": [200, 0, 0]},
                    "isLocked": True,
                    "measurements": {"IDC probability": 0.5},
                    "metadata": {"model": "m"},
                },
            },
            {
                "type": "Feature",
                "id": "1f8fad5b-d9cb-569f-a165-70867728950e",
                "geometry": {"type": "Polygon", "coordinates": [shell]},
                "properties": {"objectType": "tile", "measurements": {"IDC probability": 0.5}},
            },
        ],
    }


PARTS = [
    [[[0, 0], [10, 0], [10, 10], [0, 0]]],
    [[[5, 1], [15, 1], [15, 10], [5, 1]]],
]
BOW_TIE = [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]
OUTSIDE = [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]], [[20, 20], [25, 20], [25, 25], [20, 20]]]
SNAPS_INVALID = [[[0, 0], [10, 0], [10, 5], [0.004, 5], [-0.004, 6], [0, 7], [0.003, 5.5], [0, 0]]]
GONE = object()

# QuPath 0.7.0 refuses the file (or, for the last, reads nothing of it).
REFUSED: dict[str, tuple[str, Any]] = {
    "id null": ("features/0/id", None),
    "geometry null": ("features/0/geometry", None),
    "geometry missing": ("features/0/geometry", GONE),
    "geometry empty": ("features/0/geometry", {}),
    "properties null": ("features/0/properties", None),
    "name null": ("features/0/properties/name", None),
    "class without colour": ("features/0/properties/classification/color", GONE),
    "class colour as hex": ("features/0/properties/classification/color", "#ff0000"),
    "class colour of two values": ("features/0/properties/classification/color", [1, 2]),
    "class colour of names": ("features/0/properties/classification/color", ["a", "b", "c"]),
    "class name blank": ("features/0/properties/classification/name", "  "),
    "class name empty": ("features/0/properties/classification/name", ""),
    "class name with a line break": ("features/0/properties/classification/name", "a\nb"),
    "class name missing": ("features/0/properties/classification/name", GONE),
    "class a number": ("features/0/properties/classification", 7),
    "measurement a word": ("features/0/properties/measurements/IDC probability", "high"),
    "measurement null in a list": (
        "features/0/properties/measurements",
        [{"name": "p", "value": None}],
    ),
    "geometry collection": (
        "features/0/geometry",
        {"type": "GeometryCollection", "geometries": []},
    ),
    "geometry of no kind": ("features/0/geometry/type", "Circle"),
    "plane with an extra key": ("features/0/geometry/plane", {"c": 0, "z": 0, "t": 0, "k": 1}),
    "ring not closed": ("features/0/geometry/coordinates/0/4", [0, 1]),
    "ring of three points": ("features/0/geometry/coordinates/0", [[0, 0], [1, 1], [0, 0]]),
    "coordinate null": ("features/0/geometry/coordinates/0/1", [None, 0]),
    "coordinate NaN": ("features/0/geometry/coordinates/0/1", [float("nan"), 0]),
    "coordinate infinite": ("features/0/geometry/coordinates/0/1", [float("inf"), 0]),
    "coordinate of one value": ("features/0/geometry/coordinates/0/1", [1]),
    "crossing itself": ("features/0/geometry/coordinates", BOW_TIE),
    "invalid once snapped": ("features/0/geometry/coordinates", SNAPS_INVALID),
    "hole outside": ("features/0/geometry/coordinates", OUTSIDE),
    "parts overlap": ("features/0/geometry", {"type": "MultiPolygon", "coordinates": PARTS}),
    "feature null": ("features/1", None),
    "a child without geometry": ("features/0/properties/childObjects", [{"type": "Feature"}]),
    "features missing": ("features", GONE),
    "no collection": ("type", "Collection"),
}

# QuPath takes the file, but ignores, replaces or guesses, or versions differ.
MISREAD: dict[str, tuple[str, Any]] = {
    "id no UUID": ("features/0/id", "region-1"),
    "id a number": ("features/0/id", 1),
    "id missing": ("features/0/id", GONE),
    "id twice": ("features/1/id", "0f8fad5b-d9cb-569f-a165-70867728950e"),
    "object type unknown": ("features/0/properties/objectType", "region"),
    "object type missing": ("features/0/properties/objectType", GONE),
    "a property called type": ("features/0/properties/type", "tile"),
    "an unknown property": ("features/0/properties/probability", 0.5),
    "object type beside the properties": ("features/0/objectType", "tile"),
    "class name with a colon": ("features/0/properties/classification/name", "Tumor: Positive"),
    "class as bare text": ("features/0/properties/classification", "Tumor"),
    "class null": ("features/0/properties/classification", None),
    "class colour null": ("features/0/properties/classification/color", None),
    "class colour of four values": ("features/0/properties/classification/color", [1, 2, 3, 4]),
    "class colour past 255": ("features/0/properties/classification/color", [1, 2, 256]),
    "class colour of fractions": ("features/0/properties/classification/color", [0.5, 0.5, 0.1]),
    "measurement null": ("features/0/properties/measurements/IDC probability", None),
    "measurement true": ("features/0/properties/measurements/IDC probability", True),
    "measurement nested": ("features/0/properties/measurements/IDC probability", {"a": 1}),
    "measurement as text": ("features/0/properties/measurements/IDC probability", "0.5"),
    "measurement NaN": ("features/0/properties/measurements/IDC probability", float("nan")),
    "measurement infinite": ("features/0/properties/measurements/IDC probability", float("inf")),
    "metadata nested": ("features/0/properties/metadata/model", {"name": "m"}),
    "metadata a number": ("features/0/properties/metadata/model", 1),
    "region not locked": ("features/0/properties/isLocked", False),
    "region without a lock": ("features/0/properties/isLocked", GONE),
    "a point": ("features/0/geometry", {"type": "Point", "coordinates": [1, 2]}),
    "no area": ("features/0/geometry/coordinates", [[[0, 0], [0, 0], [0, 0], [0, 0]]]),
    "nothing in it": ("features/0/geometry/coordinates", []),
    "one part only": ("features/0/geometry", {"type": "MultiPolygon", "coordinates": PARTS[:1]}),
    "three coordinates": ("features/0/geometry/coordinates/0/1", [100, 0, 5]),
}


def plant(place: str, value: Any) -> dict[str, Any]:
    document = sound()
    *steps, last = [int(step) if step.isdigit() else step for step in place.split("/")]
    inner: Any = document
    for step in steps:
        inner = inner[step]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = copy.deepcopy(value)
    return document


def save(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_the_sound_file_is_taken(tmp_path: Path):
    jsonschema.Draft202012Validator.check_schema(load_schema())
    path = save(tmp_path / "x.geojson", sound())
    assert check_geojson(path) == []
    assert check_geojson(path, contract="read") == []


@pytest.mark.parametrize(("place", "value"), REFUSED.values(), ids=REFUSED)
def test_what_qupath_refuses_is_refused(tmp_path: Path, place: str, value: Any):
    path = save(tmp_path / "x.geojson", plant(place, value))
    assert check_geojson(path) != []
    assert check_geojson(path, contract="read") != []


@pytest.mark.parametrize(("place", "value"), MISREAD.values(), ids=MISREAD)
def test_what_qupath_misreads_is_refused_in_our_own_files(tmp_path: Path, place: str, value: Any):
    path = save(tmp_path / "x.geojson", plant(place, value))
    assert check_geojson(path) != []
    assert check_geojson(path, contract="read") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"isLocked": true', '"isLocked": true, "isLocked": true'),
        ('"IDC probability": 0.5', '"IDC probability": NaN'),
        ('"IDC probability": 0.5', '"IDC probability": -Infinity'),
        ('{"type": "FeatureCollection"', '\ufeff{"type": "FeatureCollection"'),
    ],
    ids=["key twice", "NaN", "infinity", "byte order mark"],
)
def test_what_only_json_forbids_is_refused_in_our_own_files(tmp_path: Path, old: str, new: str):
    text = json.dumps(sound())
    assert old in text
    path = tmp_path / "x.geojson"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert check_geojson(path) != []
    assert check_geojson(path, contract="read") == []


@pytest.mark.parametrize(
    "raw",
    [b"", b'{"type": "FeatureCollection", "features": [', b"[1,]", b"\xff\xfe", b"{}\n{}"],
    ids=["empty", "cut short", "trailing comma", "not UTF-8", "one object a line"],
)
def test_what_is_no_json_is_refused(tmp_path: Path, raw: bytes):
    for name, content in (("x.geojson", raw), ("x.geojson.gz", gzip.compress(raw, mtime=0))):
        (tmp_path / name).write_bytes(content)
        for contract in ("written", "read"):
            assert check_geojson(tmp_path / name, contract=contract) != []


def test_a_damaged_archive_and_a_wrong_suffix_are_refused(tmp_path: Path):
    packed = gzip.compress(json.dumps(sound()).encode(), mtime=0)
    (tmp_path / "x.geojson.gz").write_bytes(packed[:-9])
    assert "not JSON" in check_geojson(tmp_path / "x.geojson.gz")[0]
    save(tmp_path / "x.txt", sound())
    assert "QuPath opens" in check_geojson(tmp_path / "x.txt")[0]


def test_a_message_says_where(tmp_path: Path):
    path = save(tmp_path / "x.geojson", plant("features/1/properties/objectType", "glass"))
    (message,) = check_geojson(path)
    assert re.match(r"features/1/properties/objectType: 'glass' is not one of", message)


EXPORTS = (
    "qupath-brush.json",
    "qupath-ellipse.json",
    "qupath-line.json",
    "qupath-multipoint.json",
    "qupath-point.json",
    "qupath-polygon-cell-classified.json",
    "qupath-polygon.json",
    "qupath-polyline.json",
    "qupath-rectangle.json",
    "qupath-wand.json",
    "qupath05.geojson",
)


@pytest.mark.parametrize("name", EXPORTS)
def test_what_qupath_exported_it_reads(data: Callable[[str], Path], name: str):
    assert check_geojson(data(f"geojson/{name}"), contract="read") == []


@pytest.mark.parametrize("name", ["pathologycore-area.json", "pathologycore-polyline.json"])
def test_annotations_of_another_program_are_no_geojson(data: Callable[[str], Path], name: str):
    assert check_geojson(data(f"geojson/{name}"), contract="read") != []
