"""Tables of nuclei: made, chosen from, and joined without losing a corner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.errors import ModelError
from slidetriage.models.nuclei import Assessment, Instances, NucleusTable, join_tables


def table_of(corners: list[int], *, shift: float = 0.0) -> NucleusTable:
    """Regular polygons, the i-th at x = 10 i + shift."""
    rings = []
    for i, count in enumerate(corners):
        turn = np.arange(count) * 2 * np.pi / count
        rings.append(np.stack([10 * i + shift + np.cos(turn), np.sin(turn)], axis=1))
    points = np.concatenate([np.empty((0, 2)), *rings])
    offsets = np.concatenate([[0], np.cumsum(corners)]).astype(np.int64)
    places = np.arange(len(corners), dtype=np.float32)
    return NucleusTable(points, offsets, places / 100, {"Corners": np.array(corners, np.float32)})


corner_counts = st.lists(st.integers(3, 9), max_size=12)


@given(corner_counts)
@settings(deadline=None)
def test_polygons_have_the_corners_they_were_given(corners: list[int]) -> None:
    table = table_of(corners)
    polygons = table.polygons()
    assert len(polygons) == len(table) == len(corners)
    for i, polygon in enumerate(polygons):
        ring = np.array(polygon.exterior.coords)
        assert np.array_equal(ring[:-1], table.points[table.offsets[i] : table.offsets[i + 1]])
        assert np.array_equal(ring[-1], ring[0])


@given(corner_counts, st.data())
@settings(deadline=None)
def test_choosing_is_choosing_polygons(corners: list[int], data: st.DataObject) -> None:
    table = table_of(corners)
    order = data.draw(st.lists(st.integers(0, max(len(corners) - 1, 0)), max_size=9))
    index = np.array(order if corners else [], np.intp)
    part = table.choose(index)
    assert [p.wkt for p in part.polygons()] == [p.wkt for p in table.polygons()[index]]
    assert np.array_equal(part.scores, table.scores[index])
    mask = table.measurements["Corners"] > 5
    assert len(table.choose(mask)) == mask.sum()


@given(st.lists(corner_counts, max_size=4))
@settings(deadline=None)
def test_joining_keeps_order(parts: list[list[int]]) -> None:
    tables = [table_of(corners, shift=100.0 * i) for i, corners in enumerate(parts)]
    whole = join_tables(tables)
    assert [p.wkt for p in whole.polygons()] == [p.wkt for t in tables for p in t.polygons()]
    assert len(whole) == sum(map(len, parts))


def test_columns_of_unequal_length_are_refused() -> None:
    table = table_of([3, 4])
    with pytest.raises(ModelError, match="differ in length"):
        NucleusTable(table.points, table.offsets, table.scores[:1], {})
    with pytest.raises(ModelError, match="differ in length"):
        NucleusTable(table.points[:-1], table.offsets, table.scores, {})
    with pytest.raises(ModelError, match="differ in length"):
        NucleusTable(table.points, table.offsets, table.scores, {"Area": np.zeros(3, np.float32)})


def test_tables_with_other_columns_are_not_joined() -> None:
    table = table_of([3])
    other = NucleusTable(table.points, table.offsets, table.scores, {})
    with pytest.raises(ModelError, match="cannot be joined"):
        join_tables([table, other])


def test_more_labels_than_scores_are_refused() -> None:
    with pytest.raises(ModelError, match="2 nuclei are drawn"):
        Instances(np.array([[0, 1, 2]], np.int32), np.ones(1, np.float32))
    assert len(Instances(np.zeros((0, 0), np.int32), np.ones(0, np.float32))) == 0


def test_an_assessment_is_chosen_from_like_its_table() -> None:
    rng = np.random.default_rng(0)
    found = Assessment(
        abnormality=rng.normal(size=6).astype(np.float32),
        classes=np.array([0, 1, 0, 1, 0, 1], np.uint8),
        class_names=("Nucleus", "Abnormal nucleus"),
        class_colors=((0, 0, 255), (255, 0, 0)),
        flagged=np.array([False, True] * 3),
        reasons=rng.integers(-1, 3, (6, 3)).astype(np.int8),
        reason_names=("a", "b", "c"),
    )
    part = found.choose(found.flagged)
    assert len(part) == 3
    assert part.flagged.all()
    assert np.array_equal(part.abnormality, found.abnormality[1::2])
    assert np.array_equal(part.reasons, found.reasons[1::2])
    assert part.class_names == found.class_names
