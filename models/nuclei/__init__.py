"""Nuclei: finding and outlining them, measuring each, and telling the abnormal ones."""

from .abnormality import Assessor, Reference, fit_reference
from .classical import ClassicalDetector
from .classifier import NucleusClassifier, fit_classifier, read_classifier, write_classifier
from .detector_card import DetectorCard
from .instances import Instances, NucleusDetector
from .learned import LearnedDetector, list_detectors, load_detector
from .matching import Agreement, compare_labels
from .measuring import (
    NEIGHBOUR_NAMES,
    OWN_NAMES,
    Window,
    measure_neighbours,
    measure_nuclei,
)
from .outlines import Outlines, simplify_outlines, trace_outlines
from .rescaling import detect_at_any_scale
from .stain_vectors import StainVectors
from .table import Assessment, NucleusTable, join_tables

__all__ = [
    "NEIGHBOUR_NAMES",
    "OWN_NAMES",
    "Agreement",
    "Assessment",
    "Assessor",
    "ClassicalDetector",
    "DetectorCard",
    "Instances",
    "LearnedDetector",
    "NucleusClassifier",
    "NucleusDetector",
    "NucleusTable",
    "Outlines",
    "Reference",
    "StainVectors",
    "Window",
    "compare_labels",
    "detect_at_any_scale",
    "fit_classifier",
    "fit_reference",
    "join_tables",
    "list_detectors",
    "load_detector",
    "measure_neighbours",
    "measure_nuclei",
    "read_classifier",
    "simplify_outlines",
    "trace_outlines",
    "write_classifier",
]
