"""A bundle small enough to build in every test."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slidetriage.models import (
    Card,
    ClassCard,
    DataSource,
    EncoderCard,
    HeadCard,
    Metric,
    OperatingPoint,
    SlideHead,
    TrainingCard,
    WeightsCard,
    random_encoder,
    save_bundle,
)
from slidetriage.models.heads import build_head

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))


@pytest.fixture
def encoder_card() -> EncoderCard:
    half = (0.5, 0.5, 0.5)
    return EncoderCard(
        name="test_efficientnet",
        arguments={"drop_rate": 0.1},
        pooling="default",
        feature_size=256,
        input_px=32,
        interpolation="bilinear",
        mean=half,
        std=half,
    )


@pytest.fixture
def card(encoder_card: EncoderCard) -> Card:
    point = OperatingPoint(0.5, "chosen so", "ten tiles", 0.9, 0.8)
    training = TrainingCard(
        data=(DataSource("tiles", "https://example.org", "CC0-1.0", ("Doe 2020",)),),
        started_from="random weights",
        patients=3,
        tiles=10,
        seed=0,
        split_seed=0,
        validation_patients=("1", "2"),
        test_patients=("3",),
        tile_stage="none",
        bag_stage="none",
        machine="any",
    )
    return Card(
        schema_version=2,
        name="tiny",
        version="0.1",
        summary="For tests.",
        intended_use="For Research Use Only. Not for use in diagnostic procedures.",
        licence="Apache-2.0",
        stain="H&E",
        tissue="breast",
        classes=(
            ClassCard("other", False, "Other", (160, 160, 160)),
            ClassCard("tumour", True, "Tumor", (200, 0, 0)),
        ),
        mpp=4.0,
        mpp_range=(3.5, 4.5),
        tile_px=20,
        encoder=encoder_card,
        encoder_from=None,
        stain_normaliser=None,
        head=HeadCard("gated_attention", {"hidden": 8, "attention": 4}, tile_classifier=True),
        calibration=None,
        tile_threshold=point,
        slide_threshold=point,
        rule_out=None,
        conformal=None,
        novelty=None,
        training=training,
        metrics=(Metric("tile AUC", 0.9, 0.8, 0.95, "ten tiles"),),
        limits=("Knows nothing.",),
        weights=WeightsCard("weights.safetensors", "0" * 64),
    )


@pytest.fixture
def bundle_path(card: Card, tmp_path: Path) -> Path:
    """Directory of a bundle with random weights."""
    encoder = random_encoder(card.encoder, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        head = build_head("gated_attention", 256, 1, hidden=8, attention=4)
        model = SlideHead(head, tile_classifier=True)
    save_bundle(tmp_path / "tiny", card, backbone=encoder.backbone, head=model)
    return tmp_path / "tiny"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 20, 20, 3), np.uint8)
