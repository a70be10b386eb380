"""The detector without weights."""

from __future__ import annotations

import numpy as np
import pytest
from nuclei.phantoms import label_phantom, plan_scene
from skimage.color import rgb2hed

from slidetriage.models.nuclei import NucleusDetector
from slidetriage.models.nuclei.classical import ClassicalDetector, haematoxylin
from slidetriage.models.nuclei.matching import compare_labels
from slidetriage.wsi.phantom_paint import render_pixels


def test_it_is_a_detector_whose_identity_follows_its_settings() -> None:
    found: NucleusDetector = ClassicalDetector()
    assert found.name == "classical-1"
    assert found.identity == ClassicalDetector().identity
    assert found.identity != ClassicalDetector(nucleus_um=8.0).identity
    assert found.margin_px > 100


def test_haematoxylin_is_that_of_scikit_image() -> None:
    image = np.random.default_rng(0).integers(20, 256, (9, 8, 3)).astype(np.uint8)
    theirs = 6 * rgb2hed(image)[..., 0]  # in units of a density of 6
    clear = theirs > 0.05  # theirs is cut off at 0
    np.testing.assert_allclose(haematoxylin(image)[clear], theirs[clear], atol=0.08)


def test_a_phantom_mostly() -> None:
    scene = plan_scene(3, 0.5)
    box = (1200, 1100, 512, 512)
    image, true = render_pixels(scene, box, 0.5), label_phantom(scene, box, 0.5)
    found = ClassicalDetector().detect(image[None])[0]
    assert compare_labels(true, found.labels).f1 > 0.6
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_two_discs_that_touch_are_two() -> None:
    y, x = np.mgrid[:96, :96]
    dark = (np.hypot(y - 48, x - 38) < 10) | (np.hypot(y - 48, x - 57) < 10)
    image = np.where(dark[..., None], (80, 60, 140), (235, 210, 225)).astype(np.uint8)
    assert len(ClassicalDetector().detect(image[None])[0]) == 2


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 40, 33, 3)])
@pytest.mark.parametrize("shade", [0, 200, 255])
def test_nothing_is_found_where_nothing_is(shape: tuple[int, ...], shade: int) -> None:
    found = ClassicalDetector().detect(np.full(shape, shade, np.uint8))
    assert [len(one) for one in found] == [0] * shape[0]
