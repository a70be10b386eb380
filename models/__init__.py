"""What to think: encoders, heads and bundles; arrays in, arrays out. Owns torch and timm."""

from .attention import GatedAttentionHead, HeadOutput
from .backbones import HubModel, hub_encoder, load_encoder, random_encoder
from .bundle import Bundle
from .card import (
    Card,
    ClassCard,
    DataSource,
    EncoderCard,
    HeadCard,
    Metric,
    OperatingPoint,
    TrainingCard,
    WeightsCard,
    read_card,
)
from .encoder import TileEncoder
from .precision import Device, Precision, RuntimeChoice
from .predictions import Bag, BagPrediction
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
    "GatedAttentionHead",
    "HeadCard",
    "HeadOutput",
    "HubModel",
    "Metric",
    "OperatingPoint",
    "Precision",
    "RuntimeChoice",
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
