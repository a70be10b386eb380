"""The store of features that a slide is worked on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slidetriage.workflows import features as store


@pytest.mark.parametrize(
    ("tiles", "batch", "rows"), [(0, 4, []), (3, 4, [3]), (23, 4, [8, 8, 7]), (23, 50, [23])]
)
def test_features_come_back_in_order_and_in_whole_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: int, batch: int, rows: list[int]
) -> None:
    monkeypatch.setattr(store, "ROWS_AT_ONCE", 10)
    path = tmp_path / store.FEATURES
    store.create_features(path, tiles=tiles, dimension=5, batch=batch)
    values = np.random.default_rng(0).normal(size=(tiles, 5)).astype(np.float32)
    coverage = np.linspace(0, 1, tiles, dtype=np.float32)
    for start in reversed(range(0, tiles, batch)):  # in any order
        part = slice(start, start + batch)
        store.write_features(path, start, values[part], coverage[part])
    parts = list(store.iterate_features(path))
    assert [len(part) for part in parts] == rows
    np.testing.assert_array_equal(np.concatenate([np.zeros((0, 5), np.float32), *parts]), values)
    np.testing.assert_array_equal(store.read_coverage(path), coverage)


def test_what_was_not_written_is_nan(tmp_path: Path) -> None:
    path = tmp_path / store.FEATURES
    store.create_features(path, tiles=6, dimension=2, batch=2)
    store.write_features(path, 2, np.ones((2, 2), np.float32), np.ones(2, np.float32))
    (part,) = store.iterate_features(path)
    missing = [True, True, False, False, True, True]
    assert np.isnan(part).all(axis=1).tolist() == missing
    assert np.isnan(store.read_coverage(path)).tolist() == missing
