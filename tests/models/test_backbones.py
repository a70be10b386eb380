"""Where encoders come from: seeds, local files, and the hub's cache on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from slidetriage.errors import ModelError
from slidetriage.models import EncoderCard, HubModel, hub_encoder, load_encoder, random_encoder

COMMIT = "491b427b45c94c7fb0e78b5474cc919aff584bbf"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of the tiny network with a classifier of five classes."""
    torch.manual_seed(5)
    model = timm.create_model("test_efficientnet", num_classes=5)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_seed_decides_and_the_callers_generator_is_left_alone(encoder_card: EncoderCard) -> None:
    images = np.full((1, 20, 20, 3), 90, np.uint8)
    before = torch.random.get_rng_state()
    first, again = (random_encoder(encoder_card, seed=4).encode(images) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != random_encoder(encoder_card, seed=5).encode(images).tobytes()


def test_local_file_gives_the_features_timm_gives(
    weights: Path, encoder_card: EncoderCard, images: np.ndarray
) -> None:
    encoder = load_encoder(encoder_card, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest in encoder.identifier
    model = timm.create_model("test_efficientnet", num_classes=5)
    model.load_state_dict(load_file(weights))
    model.reset_classifier(0)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=True)
    with torch.inference_mode():
        wanted = model.eval()((x - 0.5) / 0.5).numpy()
    np.testing.assert_allclose(encoder.encode(images), wanted, atol=1e-4)


def test_other_weights_than_pinned_are_refused(weights: Path, encoder_card: EncoderCard) -> None:
    with pytest.raises(ModelError, match="SHA-256"):
        load_encoder(encoder_card, weights, sha256="0" * 64)


def test_weights_of_another_architecture_are_refused(
    weights: Path, encoder_card: EncoderCard
) -> None:
    other = dataclasses.replace(encoder_card, name="test_resnet", feature_size=96)
    with pytest.raises(ModelError, match="missing from the weights"):
        load_encoder(other, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "no_such_network"}, "knows no architecture"),
        ({"arguments": {"checkpoint_path": "/tmp/evil.pt"}}, "'checkpoint_path' is not allowed"),
        ({"arguments": {"pretrained": True}}, "'pretrained' is not allowed"),
        ({"arguments": {"no_such_argument": 3}}, "cannot build"),
        ({"feature_size": 255}, "gives 256 features"),
    ],
)
def test_impossible_cards_are_refused(
    change: dict[str, object], message: str, encoder_card: EncoderCard
) -> None:
    card = dataclasses.replace(encoder_card, **change)  # type: ignore[arg-type]  # parametrised
    with pytest.raises(ModelError, match=message):
        random_encoder(card, seed=0)


def test_layers_are_named_in_arguments() -> None:
    half = (0.5, 0.5, 0.5)
    arguments = {"img_size": 32, "mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
    card = EncoderCard("test_vit", arguments, "default", 64, 32, "bicubic", half, half)
    backbone = random_encoder(card, seed=0).backbone
    assert type(backbone.blocks[0].mlp).__name__ == "GluMlp"
    assert isinstance(backbone.blocks[0].mlp.act, torch.nn.SiLU)


@pytest.fixture
def cache(weights: Path, tmp_path: Path) -> Path:
    """A hub cache that holds one commit of one model, laid out as huggingface_hub does."""
    snapshot = tmp_path / "cache" / "models--owner--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(weights.read_bytes())
    config = {
        "architecture": "test_efficientnet",
        "num_classes": 5,
        "num_features": 256,
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (snapshot / "config.json").write_text(json.dumps(config))
    return tmp_path / "cache"


def test_hub_model_is_read_from_the_cache_without_network(
    cache: Path, weights: Path, encoder_card: EncoderCard, images: np.ndarray
) -> None:
    found = hub_encoder(HubModel.parse(f"hf-hub:owner/tiny@{COMMIT}"), cache=cache)
    wanted = load_encoder(encoder_card, weights)
    assert found.encode(images).tobytes() == wanted.encode(images).tobytes()
    given = hub_encoder(HubModel("owner/tiny", COMMIT), cache=cache, card=encoder_card)
    assert given.identifier == wanted.identifier


def test_hub_model_not_in_the_cache_is_refused_offline(cache: Path) -> None:
    with pytest.raises(ModelError, match="not in the local cache") as caught:
        hub_encoder(HubModel("owner/other", COMMIT), cache=cache)
    assert "hf download" in caught.value.mend


@pytest.mark.parametrize("text", ["owner/tiny", "hf-hub:owner/tiny", "hf-hub:owner/tiny@main"])
def test_only_pinned_commits_are_taken(text: str) -> None:
    with pytest.raises(ModelError, match="no pinned model"):
        HubModel.parse(text)


@pytest.mark.parametrize(
    "config",
    ["[]", "{", '{"architecture": "test_efficientnet"}', '{"num_features": null}'],
)
def test_odd_hub_configs_are_refused(config: str, cache: Path) -> None:
    path = next(cache.rglob("config.json"))
    path.write_text(config)
    with pytest.raises(ModelError, match="cannot be understood"):
        hub_encoder(HubModel("owner/tiny", COMMIT), cache=cache)
