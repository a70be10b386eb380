"""The table of backbones is right, and encoders come from files and caches on its terms."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import Device
from slidetriage.models.backbones import outline_backbone
from slidetriage.models.foreign import (
    BACKBONES,
    Backbone,
    find_backbone,
    list_backbones,
    open_backbone,
)

COMMIT = "491b427b45c94c7fb0e78b5474cc919aff584bbf"

# Megabytes of model.safetensors as the hub lists them, four bytes a parameter.
HUB_MEGABYTES = {
    "h-optimus-0": 4540,
    "kaiko-b16": 343,
    "kaiko-l14": 1220,
    "lunit-s16": 86.7,
    "lunit-s8": 86.7,
}


@pytest.mark.parametrize("name", list_backbones())
def test_architectures_are_as_published(name: str) -> None:
    """The meta device holds no numbers, so that the largest takes no memory."""
    backbone = find_backbone(name)
    outline = outline_backbone(backbone.card)
    parameters = sum(p.numel() for p in outline.parameters())
    published = backbone.parameters_millions
    assert parameters / 1e6 == pytest.approx(published, abs=0.5 if published > 25 else 0.45)
    if name in HUB_MEGABYTES:
        assert parameters * 4 / 1e6 == pytest.approx(HUB_MEGABYTES[name], rel=0.005)
    joined = 2 if backbone.pooling == "class_and_mean" else 1
    assert outline.num_features * joined == backbone.feature_size


@pytest.mark.parametrize(
    ("name", "prefix_tokens"), [("virchow", 1), ("virchow2", 5), ("h0-mini", 5), ("uni2-h", 9)]
)
def test_registers_are_counted(name: str, prefix_tokens: int) -> None:
    """Their mean of patch tokens leaves out the class token and the registers."""
    assert outline_backbone(find_backbone(name).card).num_prefix_tokens == prefix_tokens


def test_table_is_consistent() -> None:
    assert list_backbones() == tuple(sorted(BACKBONES))
    assert set(list_backbones(commercial=True)) == {
        "h-optimus-0",
        "resnet50",
        "virchow",
    }
    for name, backbone in BACKBONES.items():
        assert name == backbone.name
        assert "/" in backbone.repository
        assert backbone.commercial == (backbone.licence == "Apache-2.0")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A backbone small enough to build, in the table for this test; returns its weights."""
    for name, commercial in (("tiny", True), ("tiny-nc", False)):
        backbone = Backbone(
            name,
            "owner/tiny",
            "test_vit",
            64,
            0.4,
            "Apache-2.0" if commercial else "CC-BY-NC-4.0",
            commercial=commercial,
            gated=not commercial,
            arguments={"img_size": 32},
            input_px=32,
            interpolation="bilinear",
        )
        monkeypatch.setitem(BACKBONES, name, backbone)  # type: ignore[arg-type]  # a dict
    torch.manual_seed(2)
    save_file(
        timm.create_model("test_vit", img_size=32, num_classes=0).state_dict(),
        tmp_path / "model.safetensors",
    )
    return tmp_path / "model.safetensors"


def test_local_weights_give_what_timm_gives(tiny: Path) -> None:
    encoder = open_backbone("tiny", weights=tiny, device=Device(precision="float32"))
    assert hashlib.sha256(tiny.read_bytes()).hexdigest() in encoder.identifier
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    torch.manual_seed(2)
    model = timm.create_model("test_vit", img_size=32, num_classes=0).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in BACKBONES["tiny"].normalisation)
    with torch.inference_mode():
        x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
        wanted = model(x).numpy()
    np.testing.assert_allclose(encoder.encode(images), wanted, atol=1e-4)


def test_a_pinned_commit_is_read_from_the_cache(tiny: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "cache" / "models--owner--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(tiny.read_bytes())
    found = open_backbone(f"tiny@{COMMIT}", cache=tmp_path / "cache")
    assert found.identifier == open_backbone("tiny", weights=tiny).identifier
    with pytest.raises(ModelError, match="not in the local cache"):
        open_backbone(f"tiny@{'0' * 40}", cache=tmp_path / "cache")


def test_non_commercial_licences_are_named_and_must_be_accepted(tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"CC-BY-NC-4\.0") as caught:
        open_backbone("tiny-nc", weights=tiny)
    assert "accept_non_commercial=True" in caught.value.mend
    encoder = open_backbone("tiny-nc", weights=tiny, accept_non_commercial=True)
    assert encoder.feature_size == 64


@pytest.mark.parametrize("name", list_backbones())
def test_every_refusal_says_what_to_do(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_backbone(name)
    backbone = BACKBONES[name]
    told = str(caught.value)
    assert (backbone.repository if backbone.commercial else backbone.licence) in told


def test_commits_cannot_be_left_out_or_be_branches(tiny: Path) -> None:
    with pytest.raises(UsageError, match="neither is given") as caught:
        open_backbone("tiny")
    assert "owner/tiny" in caught.value.mend
    with pytest.raises(UsageError, match="both are given"):
        open_backbone(f"tiny@{COMMIT}", weights=tiny)
    with pytest.raises(ModelError, match="no pinned model"):
        open_backbone("tiny@main")
    with pytest.raises(ModelError, match="no backbone 'tinny'"):
        open_backbone("tinny", weights=tiny)
    with pytest.raises(ModelError, match="no safetensors file") as caught_again:
        open_backbone("tiny", weights=tiny.with_suffix(".bin"))
    assert "convert_pickled" in caught_again.value.mend
