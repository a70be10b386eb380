"""Everything a worker needs, imported; nothing else imports this (see `template`)."""

from __future__ import annotations

from contextlib import suppress

from slidetriage.models.compiled import ConversionError, import_openvino
from slidetriage.models.nuclei import flood_kernel, outline_kernel, shape_kernel
from slidetriage.wsi import area_kernel

from . import distribution

__all__ = ["area_kernel", "distribution", "flood_kernel", "outline_kernel", "shape_kernel"]

with suppress(ConversionError):  # a worker says so where it matters
    import_openvino()
