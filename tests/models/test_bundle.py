"""Bundles: what was saved is what is loaded, and nothing that was tampered with is."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Bag, Card, list_bundles, load_bundle

MODELS = Path(__file__).parents[2] / "models"


def rewrite(bundle: Path, data: bytes) -> None:
    """Replace the weights and make the card vouch for them, as a forger would."""
    (bundle / "weights.safetensors").write_bytes(data)
    card = json.loads((bundle / "card.json").read_text())
    card["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    (bundle / "card.json").write_text(json.dumps(card))


def edit(bundle: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load((bundle / "weights.safetensors").read_bytes())
    change(tensors)
    rewrite(bundle, save(tensors))


def test_round_trip(bundle_path: Path, card: Card, images: np.ndarray) -> None:
    first, again = load_bundle(bundle_path), load_bundle(str(bundle_path))
    assert first.card.encoder == card.encoder
    assert first.identity == again.identity
    assert len(first.identity) == 64
    scores = first.tile_scores(images)
    assert scores.tobytes() == again.tile_scores(images).tobytes()
    assert scores.shape == (40,)
    assert scores.dtype == np.float32
    assert scores.std() > 0
    assert ((scores > 0) & (scores < 1)).all()


def test_scores_and_prediction_follow_from_the_features(
    bundle_path: Path, images: np.ndarray
) -> None:
    bundle = load_bundle(bundle_path)
    features = bundle.encode(images)
    weights = bundle.head.state_dict()
    logit = features @ weights["tile.weight"][0].numpy() + weights["tile.bias"].numpy()
    scores = bundle.score_features(features)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logit)), rtol=1e-5)
    assert scores.tobytes() == bundle.tile_scores(images).tobytes()
    assert scores[7:9].tobytes() == bundle.score_features(features[7:9]).tobytes()
    prediction = bundle.predict(Bag(features, np.zeros((40, 2), np.float32)))
    assert 0 < prediction.probability < 1
    assert prediction.tile_scores.tobytes() == scores.tobytes()
    assert prediction.attention.shape == (40,)
    assert prediction.attention.dtype == np.float32
    assert prediction.attention.sum() == pytest.approx(1, abs=1e-5)


def test_no_tiles(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    none = np.empty((0, 20, 20, 3), np.uint8)
    assert bundle.tile_scores(none).shape == (0,)
    assert bundle.encode(none).shape == (0, 256)
    with pytest.raises(ModelError, match="bag is empty"):
        bundle.predict(Bag(bundle.encode(none), np.empty((0, 2), np.float32)))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 21, 20, 3), np.uint8), ((2, 20, 20), np.uint8), ((2, 20, 20, 3), np.float64)],
)
def test_tiles_of_another_kind_are_refused(
    shape: tuple[int, ...], dtype: type, bundle_path: Path
) -> None:
    with pytest.raises(UsageError, match="iles") as caught:
        load_bundle(bundle_path).tile_scores(np.zeros(shape, dtype))
    assert caught.value.mend


def test_features_of_another_encoder_are_refused(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    with pytest.raises(UsageError, match="N x 256"):
        bundle.score_features(np.zeros((3, 255), np.float32))
    with pytest.raises(UsageError, match="N x 256"):
        bundle.predict(Bag(np.zeros((3, 256)), np.zeros((3, 2))))  # type: ignore[arg-type]  # float64


def test_impossible_numbers_are_an_error(bundle_path: Path, images: np.ndarray) -> None:
    edit(bundle_path, lambda tensors: tensors["encoder.conv_head.weight"].fill_(float("nan")))
    bundle = load_bundle(bundle_path)
    with pytest.raises(ModelError, match="impossible numbers") as caught:
        bundle.tile_scores(images)
    assert caught.value.code == "E_MODEL_NAN"
    with pytest.raises(ModelError) as caught:
        bundle.predict(Bag(np.full((2, 256), np.inf, np.float32), np.zeros((2, 2), np.float32)))
    assert caught.value.code == "E_MODEL_NAN"


def test_any_flipped_byte_is_noticed(bundle_path: Path) -> None:
    path = bundle_path / "weights.safetensors"
    good, rng = path.read_bytes(), np.random.default_rng(0)
    for position in [0, 3, 7, 8, 100, len(good) - 1, *rng.integers(0, len(good), 20).tolist()]:
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(ModelError) as caught:
            load_bundle(bundle_path)
        assert caught.value.code == "E_BUNDLE"
        assert caught.value.mend
    path.write_bytes(good)
    load_bundle(bundle_path)


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["head.head.attend.weigh.weight"]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.extra"] = torch.zeros(3)


def stray(tensors: dict[str, torch.Tensor]) -> None:
    tensors["optimiser.step"] = torch.zeros(1)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head.tile.weight"] = tensors["head.tile.weight"].reshape(256, 1).contiguous()


def drop_from_encoder(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["encoder.conv_head.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "'head.attend.weigh.weight' is missing"),
        (add, "unknown tensor 'extra'"),
        (stray, "neither encoder, head nor novelty"),
        (reshape, r"'tile.weight' is \(256, 1\), not \(1, 256\)"),
        (drop_from_encoder, "'conv_head.weight' is missing"),
    ],
)
def test_tensors_must_be_those_of_the_architecture(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, bundle_path: Path
) -> None:
    edit(bundle_path, change)
    with pytest.raises(ModelError, match=message):
        load_bundle(bundle_path)


def header(table: object) -> bytes:
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text


BOMBS = {
    "header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "header of 17 MiB": (17 * 2**20).to_bytes(8, "little") + b" " * (17 * 2**20),
    "too many tensors": header(
        {f"{i}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for i in range(100_001)}
    ),
    "tensor of 2^60 values": header(
        {"a": {"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 8]}}
    )
    + bytes(8),
    "offsets past the end": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "no JSON": (4).to_bytes(8, "little") + b"\xff\xfe{}",
    "deep JSON": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "a list": header([]),
    "nothing": b"",
    "three bytes": b"abc",
}


@pytest.mark.parametrize("name", BOMBS)
def test_header_bombs_are_refused(name: str, bundle_path: Path) -> None:
    rewrite(bundle_path, BOMBS[name])
    with pytest.raises(ModelError) as caught:
        load_bundle(bundle_path)
    assert caught.value.code == "E_BUNDLE"


class Canary:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_pickles_are_never_run(form: str, bundle_path: Path, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "weights"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save(Canary(canary), path)
    rewrite(bundle_path, path.read_bytes())
    with pytest.raises(ModelError):
        load_bundle(bundle_path)
    assert not canary.exists()


def test_no_loader_that_runs_code_is_named_in_models() -> None:
    names = set()
    for path in sorted(MODELS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names.add(f"{node.value.id}.{node.attr}")
    assert "timm.create_model" in names
    assert not names & {"pickle", "joblib", "dill", "torch.load", "np.load", "torch.hub"}


def test_card_of_another_architecture_is_refused(bundle_path: Path) -> None:
    card = json.loads((bundle_path / "card.json").read_text())
    card["encoder"] |= {"name": "test_resnet", "feature_size": 96}
    (bundle_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="encoder: tensor"):
        load_bundle(bundle_path)


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors"])
def test_missing_files_are_named(name: str, bundle_path: Path) -> None:
    (bundle_path / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_bundle(bundle_path)


def test_changed_card_changes_the_identity(bundle_path: Path) -> None:
    before = load_bundle(bundle_path).identity
    path = bundle_path / "card.json"
    path.write_text(path.read_text().replace("For tests.", "For Tests."))
    assert load_bundle(bundle_path).identity != before


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    assert list_bundles() == ("breast-idc-scout",)
    for name in ("no-such-bundle", tmp_path / "nowhere"):
        with pytest.raises(ModelError, match="no bundle") as caught:
            load_bundle(name)
        assert "breast-idc-scout" in caught.value.mend
