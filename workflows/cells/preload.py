"""What a worker needs besides to look for nuclei; nothing else imports this (see `template`)."""

from __future__ import annotations

from slidetriage.models.nuclei import flood_kernel, outline_kernel, shape_kernel

from . import looking, output, station_part

__all__ = ["flood_kernel", "looking", "outline_kernel", "output", "shape_kernel", "station_part"]
