"""What to think: encoders, heads and bundles; arrays in, arrays out. Owns torch and timm."""

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
from .precision import Device, Precision, RuntimeChoice
from .predictions import Bag, BagPrediction
from .slide_head import SlideHead
from .store import list_bundles, load_bundle, save_bundle
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
