"""Encoders whose tiles are given the colours of a target first: features, identity, bundles."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Device, StainCard, load_bundle, save_bundle
from slidetriage.models.foreign import fit_normaliser
from slidetriage.models.foreign.stain import normaliser_of, stain_card
from slidetriage.workflows.research.encoders import BundleEncoder, StainedEncoder, fit_stain

METHODS = ("macenko", "reinhard")


def paint(seed: int, shift: float) -> np.ndarray:
    """A tile with a blue and a pink stain in varying density."""
    rng = np.random.default_rng(seed)
    density = rng.gamma(2, 0.35, (2, 50, 50, 1))
    blue, pink = np.array([0.65, 0.70, 0.29]), np.array([0.07 + shift, 0.99, 0.11])
    light = np.exp(-(density[0] * blue + density[1] * pink))
    return (255 * light).clip(0, 255).astype(np.uint8)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    Image.fromarray(paint(0, 0.3)).save(tmp_path / "target.png")
    return tmp_path / "target.png"


@pytest.fixture
def tiles() -> np.ndarray:
    return np.stack([paint(seed, 0.0) for seed in range(1, 5)])


@pytest.mark.parametrize("method", METHODS)
def test_tiles_are_normalised_and_features_say_so(
    method: str, target: Path, tiles: np.ndarray
) -> None:
    plain = BundleEncoder("breast-idc-scout")(Device("cpu", precision="float32"))
    stained = StainedEncoder(BundleEncoder("breast-idc-scout"), fit_stain(method, target))(
        Device("cpu", precision="float32")
    )
    with Image.open(target) as image:
        normalise = fit_normaliser(method, np.asarray(image))  # type: ignore[arg-type]  # one of the two
    changed = normalise(tiles)
    assert np.abs(changed.astype(int) - tiles).mean() > 3
    np.testing.assert_array_equal(stained.encode(tiles), plain.encode(changed))
    assert stained.identity.startswith(f"{plain.identity}+{method}-")


def test_another_target_is_another_identity(target: Path, tmp_path: Path) -> None:
    Image.fromarray(paint(9, 0.1)).save(tmp_path / "other.png")
    source, device = BundleEncoder("breast-idc-scout"), Device("cpu")
    names = {
        StainedEncoder(source, fit_stain("macenko", path))(device).identity
        for path in (target, tmp_path / "other.png")
    }
    assert len(names) == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_keeps_the_target(
    method: str, target: Path, tiles: np.ndarray, tmp_path: Path
) -> None:
    plain = load_bundle("breast-idc-scout")
    stain = fit_stain(method, target)
    card = dataclasses.replace(plain.card, stain_normaliser=stain)
    save_bundle(
        tmp_path / "b",
        card,
        backbone=plain.encoder.backbone,
        head=plain.head,
        novelty=plain.novelty,
    )
    bundle = load_bundle(tmp_path / "b", device=Device("cpu", precision="float32"))
    features = StainedEncoder(BundleEncoder("breast-idc-scout"), stain)(
        Device("cpu", precision="float32")
    ).encode(tiles)
    np.testing.assert_array_equal(bundle.encode(tiles), features)
    again = BundleEncoder(str(tmp_path / "b"))(Device("cpu", precision="float32"))
    np.testing.assert_array_equal(again.encode(tiles), features)
    with pytest.raises(ModelError, match="normalises stains already"):
        StainedEncoder(BundleEncoder(str(tmp_path / "b")), stain)(Device("cpu"))


@pytest.mark.parametrize("method", ["macenko", "vahadane", "reinhard"])
def test_cards_and_normalisers_turn_into_one_another(method: str, target: Path) -> None:
    card = fit_stain(method, target)
    assert stain_card(normaliser_of(card)) == card
    broken = StainCard(card.method, card.numbers[:-1])
    with pytest.raises(ModelError, match="no fitted stain normaliser"):
        normaliser_of(broken)


def test_bad_targets_are_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UsageError, match="cannot be read"):
        fit_stain("macenko", tmp_path / "text.png")
    with pytest.raises(UsageError, match="cannot be read"):
        fit_stain("macenko", tmp_path / "absent.png")
    with pytest.raises(UsageError, match="no stain normaliser"):
        fit_stain("gamma", target)
    Image.new("RGB", (3000, 3000), "white").save(tmp_path / "large.png")
    with pytest.raises(UsageError, match="3000 x 3000"):
        fit_stain("macenko", tmp_path / "large.png")
    Image.new("RGB", (50, 50), "white").save(tmp_path / "glass.png")
    with pytest.raises(UsageError, match="glass"):
        fit_stain("macenko", tmp_path / "glass.png")
