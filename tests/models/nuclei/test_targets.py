"""What the network is taught."""

from __future__ import annotations

import numpy as np
import pytest
from nuclei.targets import relabel, relative_depth, touching


def test_depth_is_one_at_the_centre_and_falls_to_the_border() -> None:
    y, x = np.mgrid[:41, :61]
    labels = (((y - 20) / 10) ** 2 + ((x - 30) / 25) ** 2 <= 1).astype(np.int32)
    depth = relative_depth(labels)
    assert depth[20, 30] == pytest.approx(1, abs=0.02)
    assert (depth[labels == 0] == 0).all()
    assert (np.diff(depth[20, 30:55]) < 0).all()
    assert (np.diff(depth[20:31, 30]) < 0).all()
    assert depth[20, 54] < 0.1
    # Above a half there is one compact spot: those nearer to the centre than to the border.
    assert np.hypot(*(np.argwhere(depth > 0.5) - (20, 30)).T).max() < 9


def test_the_centre_of_a_crescent_lies_in_it() -> None:
    y, x = np.mgrid[:50, :50]
    far, hole = np.hypot(y - 25, x - 25) < 20, np.hypot(y - 25, x - 31) < 17
    labels = (far & ~hole).astype(np.int32)
    depth = relative_depth(labels)
    assert labels[np.unravel_index(depth.argmax(), depth.shape)] == 1
    assert depth.max() > 0.9


def test_two_that_touch_have_a_border_between_them() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[4:16, 4:20], labels[4:16, 20:36] = 1, 2
    depth = relative_depth(labels)
    assert depth[10, 19] < 0.2
    assert depth[10, 20] < 0.2
    near = touching(labels)
    assert near[10, 18:22].all()
    assert not near[10, 6:16].any()
    assert not near[2, 5]


def test_parts_are_numbered_anew() -> None:
    labels = np.array([[5, 5, 0, 5], [0, 0, 0, 5], [3, 5, 5, 5]], np.int32)
    found = relabel(labels)
    assert found.max() == 3
    assert found[0, 0] != found[0, 3]
    assert found[2, 1] == found[0, 3]
    assert relative_depth(np.zeros((4, 5), np.int32)).max() == 0
