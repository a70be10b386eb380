"""Maskers by name, and TIAToolbox's against a direct call of the toolbox."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from slidetriage.errors import UsageError
from slidetriage.tiling import check_masker, find_tissue
from slidetriage.tiling.maskers import MASKERS


@pytest.fixture(scope="module")
def rgb(data: Callable[[str], Path]) -> np.ndarray:
    return np.asarray(Image.open(data("overviews/thumbnail_anthracosis1.jpg")))


@pytest.fixture(scope="module")
def valid(rgb: np.ndarray) -> np.ndarray:
    valid = np.ones(rgb.shape[:2], np.bool_)
    valid[:, :150] = False
    return valid


@pytest.fixture(scope="module")
def toolbox() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own packages warn on import
        from tiatoolbox.tools import tissuemask
    return tissuemask


def test_otsu_is_the_toolbox_s(rgb: np.ndarray, valid: np.ndarray, toolbox: ModuleType) -> None:
    direct = toolbox.OtsuTissueMasker().fit_transform(rgb[np.newaxis])[0]
    found = find_tissue(rgb, valid, (16, 16), masker="otsu")
    assert np.array_equal(found.mask, direct & valid)
    assert found.method == "otsu"
    assert 0.05 < found.mask.mean() < 0.5


def test_morphological_is_the_toolbox_s(
    rgb: np.ndarray, valid: np.ndarray, toolbox: ModuleType
) -> None:
    direct = toolbox.MorphologicalMasker(mpp=(8, 16)).fit_transform(rgb[np.newaxis])[0]
    found = find_tissue(rgb, valid, (8, 16), masker="morphological")
    assert np.array_equal(found.mask, direct.astype(bool) & valid)
    assert found.method == "morphological"
    assert found.mask.any()


@pytest.mark.parametrize("name", MASKERS)
def test_every_masker_leaves_out_what_is_not_valid(
    rgb: np.ndarray, valid: np.ndarray, name: str
) -> None:
    assert not find_tissue(rgb, valid, (16, 16), masker=name).mask[~valid].any()
    assert not find_tissue(rgb, np.zeros_like(valid), (16, 16), masker=name).mask.any()


def test_every_masker_answers_an_image_of_one_grey() -> None:
    grey = np.full((40, 50, 3), 240, np.uint8)
    for name in MASKERS:
        assert not find_tissue(grey, np.ones((40, 50), bool), (8, 8), masker=name).mask.any()


def test_the_names_are_known_and_the_first_is_the_default(
    rgb: np.ndarray, valid: np.ndarray
) -> None:
    assert list(MASKERS) == ["slidetriage", "otsu", "morphological"]
    assert find_tissue(rgb, valid, (16, 16)).method == "slidetriage"
    for name in MASKERS:
        check_masker(name)


def test_an_unknown_name_is_refused_with_the_choices(rgb: np.ndarray, valid: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"'grey'.*slidetriage, otsu, morphological"):
        check_masker("grey")
    with pytest.raises(UsageError, match="slidetriage, otsu, morphological"):
        find_tissue(rgb, valid, (8, 8), masker="grey")


def test_the_toolbox_is_imported_only_by_who_uses_it() -> None:
    code = "import sys, slidetriage.tiling.maskers; sys.exit('tiatoolbox' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
