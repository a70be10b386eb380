"""Research: tables of slides, features of many slides, and where they come from.

The public names are loaded when first used: the command line answers `--help` without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bags import BagSource, FileBags, NpzBags, open_bags
    from .cohort import Cohort, Column, ExcludedRow, Target
    from .encoders import BundleEncoder, EncoderFile, FileEncoder, MadeEncoder, TileCard, TileModel
    from .extraction import FeaturesReport, extract_features
    from .feature_files import convert_features, read_features, read_header, write_features
    from .feature_station import Extraction
    from .feature_values import FeatureFacts, FeatureHeader, SlideBag
    from .given_splits import GivenSplit, SplitColumns, read_splits, split_by_columns
    from .matching import match_features, open_cohort_bags
    from .tables import ColumnNames, read_cohort

__all__ = [
    "BagSource",
    "BundleEncoder",
    "Cohort",
    "Column",
    "ColumnNames",
    "EncoderFile",
    "ExcludedRow",
    "Extraction",
    "FeatureFacts",
    "FeatureHeader",
    "FeaturesReport",
    "FileBags",
    "FileEncoder",
    "GivenSplit",
    "MadeEncoder",
    "NpzBags",
    "SlideBag",
    "SplitColumns",
    "Target",
    "TileCard",
    "TileModel",
    "convert_features",
    "extract_features",
    "match_features",
    "open_bags",
    "open_cohort_bags",
    "read_cohort",
    "read_features",
    "read_header",
    "read_splits",
    "split_by_columns",
    "write_features",
]

_HOME = {
    "bags": ("BagSource", "FileBags", "NpzBags", "open_bags"),
    "cohort": ("Cohort", "Column", "ExcludedRow", "Target"),
    "encoders": (
        "BundleEncoder", "EncoderFile", "FileEncoder", "MadeEncoder", "TileCard", "TileModel",
    ),
    "extraction": ("FeaturesReport", "extract_features"),
    "feature_files": ("convert_features", "read_features", "read_header", "write_features"),
    "feature_station": ("Extraction",),
    "feature_values": ("FeatureFacts", "FeatureHeader", "SlideBag"),
    "given_splits": ("GivenSplit", "SplitColumns", "read_splits", "split_by_columns"),
    "matching": ("match_features", "open_cohort_bags"),
    "tables": ("ColumnNames", "read_cohort"),
}  # fmt: skip


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
