"""Small tile models as others would hand them over, made on the spot."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from slidetriage.models.foreign import TileModelCard

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def classifier() -> nn.Module:
    """A network of timm with three classes, its batch statistics not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = timm.create_model("test_resnet", num_classes=3)
        network.train()
        for _ in range(3):
            network(torch.randn(8, 3, 32, 32))
    return network.eval().requires_grad_(False)


@pytest.fixture
def tile_card() -> TileModelCard:
    return TileModelCard(
        name="three",
        mpp=0.5,
        tile_px=48,
        class_names=("glass", "stroma", "tumour"),
        positive="tumour",
        output="logits",
        input_px=32,
        mean=(0.7, 0.5, 0.6),
        std=(0.2, 0.25, 0.2),
    )


@pytest.fixture
def tiles() -> np.ndarray:
    """Smooth random tiles, so that ways of resizing do not differ by much."""
    coarse = torch.rand(37, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 255
    smooth = nn.functional.interpolate(coarse, 48, mode="bicubic").clamp(0, 255)
    return smooth.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous().numpy()


@pytest.fixture
def script_path(classifier: nn.Module, tmp_path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as published models are made
        traced = torch.jit.trace(classifier, torch.zeros(2, 3, 32, 32))
        torch.jit.save(traced, tmp_path / "model.pt")
    return tmp_path / "model.pt"
