"""Nuclei: finding and outlining them, measuring each, and telling the abnormal ones."""

from .instances import Instances, NucleusDetector
from .table import Assessment, NucleusTable, join_tables

__all__ = ["Assessment", "Instances", "NucleusDetector", "NucleusTable", "join_tables"]
