"""Research: tables of slides, features of many slides, and where they come from.

The public names are loaded when first used: the command line answers `--help` without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bags import BagSource, FileBags, NpzBags, open_bags
    from .cohort import Cohort, Column, ExcludedRow, Target
    from .compare_values import ComparisonFigures
    from .comparing import compare, measure_comparison
    from .encoders import BundleEncoder, EncoderFile, FileEncoder, MadeEncoder, TileCard, TileModel
    from .extraction import FeaturesReport, extract_features
    from .feature_files import convert_features, read_features, read_header, write_features
    from .feature_station import Extraction
    from .feature_values import FeatureFacts, FeatureHeader, SlideBag
    from .given_splits import GivenSplit, SplitColumns, read_splits, split_by_columns
    from .matching import match_features, open_cohort_bags
    from .prediction_files import read_predictions, write_predictions
    from .predictions import Predictions, from_outcomes
    from .registered_encoders import RegisteredEncoder
    from .report_figures import measure_report
    from .report_values import ReportFigures
    from .report_writing import evaluate
    from .study import Method, Study
    from .tables import ColumnNames, read_cohort
    from .trainings import Outcome, Training, run_training

__all__ = [
    "BagSource",
    "BundleEncoder",
    "Cohort",
    "Column",
    "ColumnNames",
    "ComparisonFigures",
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
    "Method",
    "NpzBags",
    "Outcome",
    "Predictions",
    "RegisteredEncoder",
    "ReportFigures",
    "SlideBag",
    "SplitColumns",
    "Study",
    "Target",
    "TileCard",
    "TileModel",
    "Training",
    "compare",
    "convert_features",
    "evaluate",
    "extract_features",
    "from_outcomes",
    "match_features",
    "measure_comparison",
    "measure_report",
    "open_bags",
    "open_cohort_bags",
    "read_cohort",
    "read_features",
    "read_header",
    "read_predictions",
    "read_splits",
    "run_training",
    "split_by_columns",
    "write_features",
    "write_predictions",
]

_HOME = {
    "bags": ("BagSource", "FileBags", "NpzBags", "open_bags"),
    "cohort": ("Cohort", "Column", "ExcludedRow", "Target"),
    "compare_values": ("ComparisonFigures",),
    "comparing": ("compare", "measure_comparison"),
    "encoders": (
        "BundleEncoder", "EncoderFile", "FileEncoder", "MadeEncoder", "TileCard", "TileModel",
    ),
    "report_writing": ("evaluate",),
    "extraction": ("FeaturesReport", "extract_features"),
    "feature_files": ("convert_features", "read_features", "read_header", "write_features"),
    "feature_station": ("Extraction",),
    "feature_values": ("FeatureFacts", "FeatureHeader", "SlideBag"),
    "given_splits": ("GivenSplit", "SplitColumns", "read_splits", "split_by_columns"),
    "matching": ("match_features", "open_cohort_bags"),
    "prediction_files": ("read_predictions", "write_predictions"),
    "predictions": ("Predictions", "from_outcomes"),
    "registered_encoders": ("RegisteredEncoder",),
    "report_figures": ("measure_report",),
    "report_values": ("ReportFigures",),
    "study": ("Method", "Study"),
    "tables": ("ColumnNames", "read_cohort"),
    "trainings": ("Outcome", "Training", "run_training"),
}  # fmt: skip


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
