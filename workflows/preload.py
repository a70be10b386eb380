"""What every worker needs, imported; nothing else imports this (see `template`)."""

from __future__ import annotations

from contextlib import suppress

from slidetriage.models.compiled import ConversionError, import_openvino
from slidetriage.wsi import area_kernel

from . import distribution, station
from .steady_clock import keep_time_steadily

__all__ = ["area_kernel", "distribution", "station"]

keep_time_steadily()  # before a worker waits for anything

with suppress(ConversionError):  # a worker says so where it matters
    import_openvino()
