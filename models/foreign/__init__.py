"""Other people's models, opened with care: backbones, tile classifiers, stain normalisers."""

from .onnx import load_onnx
from .pathology_backbones import BACKBONES, Backbone
from .pickled import convert_pickled, read_pickled
from .registry import find_backbone, list_backbones, open_backbone
from .stain import (
    MatrixNormaliser,
    ReinhardNormaliser,
    StainNormaliser,
    fit_normaliser,
    is_glass,
    read_normaliser,
)
from .stain_augmentation import StainAugmentation
from .tiatoolbox_models import list_tiatoolbox_models, load_tiatoolbox
from .tile_models import TileModel, TileModelCard, TileScorer
from .torchscript import load_torchscript
from .wsinfer import WSInferConfig, load_wsinfer
from .wsinfer_export import export_wsinfer

__all__ = [
    "BACKBONES",
    "Backbone",
    "MatrixNormaliser",
    "ReinhardNormaliser",
    "StainAugmentation",
    "StainNormaliser",
    "TileModel",
    "TileModelCard",
    "TileScorer",
    "WSInferConfig",
    "convert_pickled",
    "export_wsinfer",
    "find_backbone",
    "fit_normaliser",
    "is_glass",
    "list_backbones",
    "list_tiatoolbox_models",
    "load_onnx",
    "load_tiatoolbox",
    "load_torchscript",
    "load_wsinfer",
    "open_backbone",
    "read_normaliser",
    "read_pickled",
]
