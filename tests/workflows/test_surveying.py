"""What a slide is looked at for before its tiles are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slidetriage.models import load_bundle
from slidetriage.workflows import surveying
from slidetriage.workflows.settings import Settings
from slidetriage.wsi import open_reader, open_slide
from tiny_slides import gradient, write_tiff


@pytest.mark.parametrize("pixels", [900, 8_000, 60_000])
def test_the_picture_has_the_same_size_whatever_the_slides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    """The thumbnail has 150 x 50 px: it is made smaller, or the picture is read anew."""
    monkeypatch.setattr(surveying, "PICTURE_PX", pixels)
    path = write_tiff(tmp_path / "a.tif", gradient(400, 1200), mpp=1.0)
    card = load_bundle("breast-idc-scout").card
    reader = open_reader(open_slide(path))
    picture = surveying.survey_slide(reader, card, Settings()).picture
    assert picture.dtype == np.uint8
    assert picture.shape[0] * picture.shape[1] == pytest.approx(pixels, rel=0.06)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(3, rel=0.06)
    # It shows the slide: the same mean in each quarter.
    want = gradient(400, 1200).reshape(2, 200, 2, 600, 3).mean((1, 3))
    tall, wide = picture.shape[0] // 2, picture.shape[1] // 2
    for row in (0, 1):
        for column in (0, 1):
            part = picture[row * tall :][:tall, column * wide :][:, :wide]
            np.testing.assert_allclose(part.mean((0, 1)), want[row, column], atol=6)
