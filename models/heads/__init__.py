"""Heads: one per published method of multiple-instance learning, by one contract."""

from .attention import AttentionHead
from .clam import ClamHead
from .contract import Head, HeadOutput
from .dsmil import DualStreamHead
from .nnmil import FeatureSamplingHead
from .pooling import PoolingHead
from .registry import HEADS, build_head, head_arguments, list_heads
from .transmil import TransformerHead

__all__ = [
    "HEADS",
    "AttentionHead",
    "ClamHead",
    "DualStreamHead",
    "FeatureSamplingHead",
    "Head",
    "HeadOutput",
    "PoolingHead",
    "TransformerHead",
    "build_head",
    "head_arguments",
    "list_heads",
]
