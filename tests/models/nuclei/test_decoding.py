"""Maps to nuclei: the watershed against scikit-image's, and what decoding promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nuclei.targets import relative_depth
from skimage.measure import label
from skimage.morphology import disk, h_maxima
from skimage.segmentation import watershed

from slidetriage.models.nuclei.decoding import Decoding, grow_seeds, split_ground


@settings(deadline=None)
@given(
    st.permutations(range(256)),
    arrays(np.bool_, (16, 16)),
    st.lists(st.integers(0, 255), max_size=9, unique=True),
)
def test_without_ties_it_is_the_watershed_of_scikit_image(
    order: list[int], ground: np.ndarray, places: list[int]
) -> None:
    height = np.array(order, np.uint8).reshape(16, 16)
    seeds = np.zeros(256, np.int32)
    seeds[places] = np.arange(1, len(places) + 1)
    seeds = seeds.reshape(16, 16)
    wanted = watershed(-height.astype(int), seeds, mask=ground, connectivity=1)
    np.testing.assert_array_equal(grow_seeds(height, seeds, ground), wanted)


@settings(deadline=None)
@given(st.permutations(range(256)), st.integers(1, 120))
def test_peaks_that_stand_out_are_the_h_maxima_of_scikit_image(order: list[int], dip: int) -> None:
    height = np.array(order, np.uint8).reshape(16, 16)
    maxima = h_maxima(height.astype(np.int16), dip, footprint=disk(1)) > 0
    parts = split_ground(height, np.ones((16, 16), np.bool_), dip=dip)
    assert (parts > 0).all()
    peaks = np.array([height[parts == n].max() for n in range(1, parts.max() + 1)])
    np.testing.assert_array_equal(np.sort(peaks), np.sort(height[maxima]))
    assert split_ground(height, parts > 0, dip=dip, least=250).max() == (peaks >= 250).sum()


def test_ties_move_few_pixels_only() -> None:
    labels = discs()
    depth = np.rint(relative_depth(labels) * 255).astype(np.uint8)
    seeds = label(depth > 160, connectivity=2).astype(np.int32)
    ours = grow_seeds(depth, seeds, labels > 0)
    theirs = watershed(-depth.astype(int), seeds, mask=labels > 0, connectivity=1)
    assert np.mean(ours != theirs) < 0.001


def test_perfect_maps_give_the_nuclei_back() -> None:
    labels = discs()
    found = decode(labels)
    assert len(found) == labels.max()
    for number in range(1, labels.max() + 1):
        theirs = found.labels[labels == number]
        assert np.mean(theirs == np.bincount(theirs).argmax()) > 0.97
    assert (found.scores > 0.9).all()


def test_a_hole_is_filled_and_a_speck_dropped() -> None:
    labels = discs()
    inside = np.where(labels > 0, 255, 0).astype(np.uint8)
    depth = np.rint(relative_depth(labels) * 255).astype(np.uint8)
    inside[24:27, 26:29] = 0
    inside[2:4, 2:4], depth[2:4, 2:4] = 255, 255
    found = Decoding().decode(inside, depth)
    assert (found.labels[24:27, 26:29] > 0).all()
    assert (found.labels[:5, :5] == 0).all()


def test_every_nucleus_is_one_part_and_numbered_without_gaps() -> None:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (2, 90, 70)).astype(np.uint8)
    found = Decoding(certainty=0, dip=20, least_area_px=3, hole_px=0, soften=0).decode(*noise)
    assert set(np.unique(found.labels)) - {0} == set(range(1, len(found) + 1))
    assert label(found.labels, connectivity=1).max() == len(found)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (64, 48)])
def test_flat_maps(value: int, shape: tuple[int, int]) -> None:
    maps = np.full((2, *shape), value, np.uint8)
    found = Decoding().decode(*maps)
    whole = value == 255 and shape != (1, 1)
    assert len(found) == int(whole)
    assert (found.labels == int(whole)).all()


def decode(labels: np.ndarray):
    depth = np.rint(relative_depth(labels) * 255).astype(np.uint8)
    return Decoding().decode(np.where(labels > 0, 255, 0).astype(np.uint8), depth)


def discs() -> np.ndarray:
    """Round, long and touching nuclei."""
    labels = np.zeros((128, 160), np.int32)
    y, x = np.mgrid[:128, :160]
    shapes = [
        (25, 27, 14, 14),
        (27, 50, 9, 11),
        (70, 30, 5, 25),
        (80, 90, 20, 16),
        (110, 140, 6, 6),
    ]
    for number, (cy, cx, ry, rx) in enumerate(shapes, 1):
        labels[(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1) & (labels == 0)] = number
    return labels
