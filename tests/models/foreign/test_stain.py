"""Stain normalisers: TIAToolbox's results, plain numbers in between, and glass left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.foreign import (
    MatrixNormaliser,
    StainAugmentation,
    fit_normaliser,
    is_glass,
    read_normaliser,
)
from slidetriage.models.foreign.stain_augmentation import RUIFROK_HED
from slidetriage.models.foreign.toolbox import import_toolbox

METHODS = ("macenko", "vahadane", "reinhard")
HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)


def stain(seed: int, *, density: float = 1.0, px: int = 64) -> np.ndarray:
    """A tile made of known amounts of two known stains, some of it glass."""
    generator = np.random.default_rng(seed)
    amounts = generator.gamma(1.5, 0.35, (px, px, 2)) * density
    amounts[generator.random((px, px)) < 0.1] = 0
    densities = amounts @ np.array([HAEMATOXYLIN, EOSIN])
    return np.rint(255 * np.exp(-densities)).astype(np.uint8)


@pytest.fixture(scope="module")
def real(data: Callable[[str], Path]) -> np.ndarray:
    """Tissue, N x 50 x 50 x 3: tiles of two patients, none of them pale."""
    with np.load(data("idc/idc_tiles.npz")) as archive:
        images = archive["image"]
    dark = images.mean((1, 2, 3)) < 170
    return images[dark][[0, 40, 900, 2000]]


def make_theirs(method: str) -> Any:
    return import_toolbox("tools.stainnorm").get_normalizer(method)


@pytest.mark.parametrize("method", METHODS)
def test_results_are_those_of_tiatoolbox(method: Any, real: np.ndarray) -> None:
    theirs = make_theirs(method)
    theirs.fit(real[0].copy())
    wanted = np.stack([theirs.transform(tile.copy()) for tile in real[1:]])
    before = real.copy()
    found = fit_normaliser(method, real[0])(real[1:])
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(real, before)
    assert np.abs(wanted.astype(int) - real[1:]).mean() > 2


@pytest.mark.slow
def test_tiatoolbox_says_nothing_and_leaves_logging_alone() -> None:
    code = (
        "import logging, sys, numpy as np\n"
        "from slidetriage.models.foreign import fit_normaliser\n"
        "assert {'tiatoolbox', 'openvino', 'sklearn'}.isdisjoint(sys.modules)\n"
        "tile = np.random.default_rng(0).integers(30, 200, (32, 32, 3), np.uint8)\n"
        "fit_normaliser('vahadane', tile)\n"
        "assert logging.getLogger().handlers == []\n"
        "assert logging.getLogger().level == logging.WARNING\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("method", METHODS)
def test_what_is_fitted_is_kept_as_plain_numbers(method: Any, real: np.ndarray) -> None:
    fitted = fit_normaliser(method, real[0])
    text = json.dumps(fitted.to_json())
    again = read_normaliser(json.loads(text))
    assert again == fitted
    np.testing.assert_array_equal(again(real[1:]), fitted(real[1:]))


@pytest.mark.parametrize("method", METHODS)
def test_a_tile_does_not_depend_on_others(method: Any, real: np.ndarray) -> None:
    fitted = fit_normaliser(method, real[0])
    np.testing.assert_array_equal(fitted(real)[2:3], fitted(real[2:3]))
    assert fitted(real[:0]).shape == (0, 50, 50, 3)


@pytest.mark.parametrize("method", METHODS)
def test_tiles_are_not_written_into(method: Any, real: np.ndarray) -> None:
    """TIAToolbox turns zeros into ones in what it is given."""
    tiles = real.copy()
    tiles[:, :5, :5] = 0
    before = tiles.copy()
    fit_normaliser(method, tiles[0])(tiles)
    np.testing.assert_array_equal(tiles, before)


def test_macenko_finds_the_stains_that_were_put_in() -> None:
    fitted = fit_normaliser("macenko", stain(0, px=200))
    assert isinstance(fitted, MatrixNormaliser)
    for row, true in zip(fitted.stain_matrix, (HAEMATOXYLIN, EOSIN), strict=True):
        cosine = np.dot(row, true) / np.linalg.norm(true)
        assert np.degrees(np.arccos(min(cosine, 1))) < 6


def test_macenko_brings_a_pale_tile_to_the_density_of_the_target() -> None:
    fitted = fit_normaliser("macenko", stain(0, px=128))
    pale = stain(1, density=0.6, px=128)
    changed = fitted(pale[None])[0]
    wanted = stain(1, px=128)
    assert np.abs(changed.astype(int) - wanted).mean() < 6
    assert np.abs(pale.astype(int) - wanted).mean() > 20


def odd_tiles() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    speck = np.full((64, 64, 3), 245, np.uint8)
    speck[3:7, 3:7] = (80, 40, 120)
    return {
        "white": np.full((64, 64, 3), 255, np.uint8),
        "glass": generator.integers(236, 248, (64, 64, 3), dtype=np.uint8),
        "speck": speck,
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", odd_tiles())
def test_glass_stays_glass(method: Any, name: str, real: np.ndarray) -> None:
    tile = odd_tiles()[name]
    assert is_glass(tile)
    fitted = fit_normaliser(method, real[0])
    np.testing.assert_array_equal(fitted(tile[None])[0], tile)
    with pytest.raises(UsageError, match="is glass"):
        fit_normaliser(method, tile)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("colour", [(0, 0, 0), (120, 60, 140), (128, 128, 128)])
def test_tiles_of_one_colour_raise_nothing(
    method: Any, colour: tuple[int, int, int], real: np.ndarray
) -> None:
    tile = np.full((1, 32, 32, 3), colour, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_normaliser(method, real[0])(tile)
    assert found.shape == tile.shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, tile)


def test_tissue_is_no_glass(real: np.ndarray) -> None:
    assert not any(map(is_glass, real))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"method": "none"},
        {"method": ["macenko"]},
        {"method": "reinhard", "means": [1, 2, 3]},
        {"method": "reinhard", "means": [1, 2], "stds": [1, 1, 1]},
        {"method": "reinhard", "means": [1, 2, 3], "stds": [1, 0, 1]},
        {"method": "reinhard", "means": [1, 2, float("nan")], "stds": [1, 1, 1]},
        {"method": "reinhard", "means": [1, 2, True], "stds": [1, 1, 1]},
        {"method": "macenko", "stain_matrix": [[1, 0, 0]], "max_concentrations": [1, 1]},
        {"method": "macenko", "stain_matrix": [[1, 0, 0]] * 2, "max_concentrations": [1, 1]},
        {
            "method": "macenko",
            "stain_matrix": [[1, 0, 0], [0, 1, 0]],
            "max_concentrations": [1, -1],
        },
        {
            "method": "macenko",
            "stain_matrix": [[1, 0, 0], [0, 1, 0]],
            "max_concentrations": [1, 1],
            "more": 1,
        },
    ],
)
def test_other_states_are_refused(state: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="no fitted stain normaliser") as caught:
        read_normaliser(state)
    assert caught.value.mend


def test_other_methods_and_arrays_are_refused(real: np.ndarray) -> None:
    with pytest.raises(UsageError, match="no stain normaliser"):
        fit_normaliser("none", real[0])  # type: ignore[arg-type]  # on purpose
    with pytest.raises(UsageError):
        fit_normaliser("macenko", real[0].astype(np.float32))  # type: ignore[arg-type]  # on purpose
    with pytest.raises(UsageError):
        fit_normaliser("macenko", real[:2])


class TestAugmentation:
    """Against TIAToolbox's StainAugmentor, with the same numbers drawn."""

    def test_three_stains_as_tiatoolbox(self, real: np.ndarray) -> None:
        alpha, beta = np.array([1.3, 0.8, 1.1]), np.array([0.1, -0.05, 0.02])
        matrix = np.array(RUIFROK_HED)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        theirs = import_toolbox("tools.stainaugment").StainAugmentor(
            "macenko", stain_matrix=matrix, augment_background=True
        )
        theirs.fit(real[0].copy())
        drawn = iter(zip(alpha, beta, strict=True))

        def draw() -> None:
            theirs.alpha, theirs.beta = next(drawn)

        theirs._sample_params = draw
        wanted = theirs.augment()
        found = StainAugmentation().change(real[:1], alpha[None], beta[None], spare_glass=False)[0]
        # They cut fractions off where we round.
        assert np.abs(found.astype(int) - wanted).max() <= 1
        assert np.abs(found.astype(int) - real[0]).mean() > 5

    def test_two_stains_give_the_amounts_that_were_meant(self) -> None:
        augmentation = StainAugmentation((HAEMATOXYLIN, EOSIN))
        tile = stain(3)
        norms = np.linalg.norm([HAEMATOXYLIN, EOSIN], axis=1)
        found = augmentation.change(
            tile[None], np.array([[1.4, 1.0]]), np.array([[0.0, 0.0]]), spare_glass=False
        )[0]
        unit = np.array([HAEMATOXYLIN, EOSIN]) / norms[:, None]

        def amounts(image: np.ndarray) -> np.ndarray:
            density = -np.log(np.maximum(image.reshape(-1, 3), 1) / 255)
            return density @ np.linalg.pinv(unit)

        clear = tile.reshape(-1, 3).min(axis=1) > 40  # where rounding matters little
        before, after = amounts(tile)[clear], amounts(found)[clear]
        np.testing.assert_allclose(after[:, 0], before[:, 0] * 1.4, atol=0.06)
        np.testing.assert_allclose(after[:, 1], before[:, 1], atol=0.06)

    def test_no_change_is_no_change(self, real: np.ndarray) -> None:
        for matrix in (RUIFROK_HED, (HAEMATOXYLIN, EOSIN)):
            still = StainAugmentation(matrix, scale=0, shift=0)
            found = still(real, np.random.default_rng(0))
            assert np.abs(found.astype(int) - real).max() <= 1

    def test_glass_stays_glass(self) -> None:
        augmentation = StainAugmentation(scale=0.5, shift=0.3)
        white = np.full((4, 32, 32, 3), 255, np.uint8)
        np.testing.assert_array_equal(augmentation(white, np.random.default_rng(0)), white)

    def test_the_generator_decides(self, real: np.ndarray) -> None:
        augmentation = StainAugmentation()
        first, again = (augmentation(real, np.random.default_rng(7)) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        other = augmentation(real, np.random.default_rng(8))
        assert (other != first).any()
        twins = augmentation(np.stack([real[0]] * 2), np.random.default_rng(7))
        assert (twins[0] != twins[1]).any()

    @pytest.mark.parametrize(
        "changes",
        [
            {"scale": 1.0},
            {"scale": -0.1},
            {"shift": -1.0},
            {"stain_matrix": (HAEMATOXYLIN,)},
            {"stain_matrix": (HAEMATOXYLIN, HAEMATOXYLIN)},
        ],
    )
    def test_impossible_settings_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            StainAugmentation(**changes)
