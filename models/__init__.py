"""What to think: encoders, heads and bundles; arrays in, arrays out. Owns torch and timm.

The public names are loaded when first used: to read a card takes no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backbones import HubModel, hub_encoder, load_encoder, random_encoder
    from .bundle import Bundle
    from .card import (
        Card,
        ClassCard,
        DataSource,
        EncoderCard,
        EncoderReference,
        HeadCard,
        Metric,
        NoveltyCard,
        OperatingPoint,
        StainCard,
        TrainingCard,
        WeightsCard,
        read_card,
    )
    from .encoder import TileEncoder
    from .folders import list_bundles
    from .precision import Device, Precision, RuntimeChoice
    from .predictions import Bag, BagPrediction
    from .slide_head import SlideHead
    from .store import load_bundle, save_bundle
    from .tile_network import TileTransform

__all__ = [
    "Bag",
    "BagPrediction",
    "Bundle",
    "Card",
    "ClassCard",
    "DataSource",
    "Device",
    "EncoderCard",
    "EncoderReference",
    "HeadCard",
    "HubModel",
    "Metric",
    "NoveltyCard",
    "OperatingPoint",
    "Precision",
    "RuntimeChoice",
    "SlideHead",
    "StainCard",
    "TileEncoder",
    "TileTransform",
    "TrainingCard",
    "WeightsCard",
    "hub_encoder",
    "list_bundles",
    "load_bundle",
    "load_encoder",
    "random_encoder",
    "read_card",
    "save_bundle",
]

_HOME = {
    "backbones": ("HubModel", "hub_encoder", "load_encoder", "random_encoder"),
    "bundle": ("Bundle",),
    "card": (
        "Card",
        "ClassCard",
        "DataSource",
        "EncoderCard",
        "EncoderReference",
        "HeadCard",
        "Metric",
        "NoveltyCard",
        "OperatingPoint",
        "StainCard",
        "TrainingCard",
        "WeightsCard",
        "read_card",
    ),
    "encoder": ("TileEncoder",),
    "folders": ("list_bundles",),
    "precision": ("Device", "Precision", "RuntimeChoice"),
    "predictions": ("Bag", "BagPrediction"),
    "slide_head": ("SlideHead",),
    "store": ("load_bundle", "save_bundle"),
    "tile_network": ("TileTransform",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
