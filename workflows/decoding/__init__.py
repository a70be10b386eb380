"""Reads slides in child processes: a file that kills or hangs a decoder costs only itself."""

from __future__ import annotations

from .decoder import Decoder
from .nursery_link import Nursery

__all__ = ["Decoder", "Nursery"]
