"""Bundles of any backbone for benchmarks: random weights, since only their cost is measured."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from pathlib import Path

import timm
import torch

from slidetriage.errors import SlideTriageError
from slidetriage.models import (
    EncoderCard,
    HeadCard,
    SlideHead,
    load_bundle,
    random_encoder,
    save_bundle,
)
from slidetriage.models.heads import build_head
from slidetriage.workflows.settings import DEFAULT_BUNDLE

SIZES = {"hidden": 128, "attention": 64}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def make_bundle(folder: Path, backbone: str, *, mpp: float, tile_px: int) -> Path:
    """A bundle of this timm backbone with a small head, on tiles of that scale; made once."""
    with suppress(SlideTriageError):  # it is not there, or of another version
        load_bundle(folder)
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    model = timm.create_model(backbone, num_classes=0)
    encoder = EncoderCard(
        name=backbone, arguments={}, pooling="default", feature_size=model.num_features,
        input_px=tile_px, interpolation="bilinear", mean=IMAGENET[0], std=IMAGENET[1],
    )  # fmt: skip
    card = dataclasses.replace(
        load_bundle(DEFAULT_BUNDLE).card, name=f"benchmark-{backbone.replace('_', '-')}", mpp=mpp,
        mpp_range=(mpp / 4, mpp * 1.1), tile_px=tile_px, encoder=encoder,
        head=HeadCard("gated_attention", SIZES, tile_classifier=True), calibration=None,
        rule_out=None, conformal=None, novelty=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = build_head("gated_attention", encoder.feature_size, 1, **SIZES)
        model = SlideHead(head, tile_classifier=True)
    save_bundle(folder, card, backbone=random_encoder(encoder, seed=0).backbone, head=model.eval())
    return folder
