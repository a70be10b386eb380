"""The labels of painted nuclei lie where the nuclei were painted."""

from __future__ import annotations

import numpy as np
import pytest
from nuclei.phantoms import label_phantom, plan_scene

from slidetriage.wsi import PhantomScene
from slidetriage.wsi.phantom_paint import render_pixels


@pytest.fixture(scope="module")
def scene() -> PhantomScene:
    return plan_scene(2, 0.5)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_labels_are_dark_and_have_the_ellipses_area_and_centre(
    scene: PhantomScene, mpp: float
) -> None:
    corner = [round(v / mpp) for v in (560, 600)]
    box = (*corner, 400, 400)
    labels, image = label_phantom(scene, box, mpp), render_pixels(scene, box, mpp)
    assert image[labels > 0].mean() < image[labels == 0].mean() - 40
    checked = 0
    for number in np.setdiff1d(np.unique(labels), 0):
        y, x = np.nonzero(labels == number)
        if min(y.min(), x.min()) == 0 or max(y.max(), x.max()) == 399:
            continue
        centre = scene.nuclei.centres_um[number - 1] / mpp - 0.5 - corner
        area = np.pi * scene.nuclei.semi_axes_um[number - 1].prod() / mpp**2
        if abs(len(y) / area - 1) < 0.15:  # most overlap no other
            assert np.hypot(x.mean() - centre[0], y.mean() - centre[1]) < 0.12 * np.sqrt(area)
            checked += 1
    assert checked > 0.7 * len(np.unique(labels)) - 25
    assert checked > 5


def test_labels_do_not_depend_on_the_cut(scene: PhantomScene) -> None:
    whole = label_phantom(scene, (1100, 1200, 300, 300), 0.5)
    part = label_phantom(scene, (1200, 1250, 90, 110), 0.5)
    np.testing.assert_array_equal(part, whole[50:160, 100:190])
