"""What a worker needs besides to look for nuclei; nothing else imports this (see `template`).

But for Arrow, which starts a thread when it is imported: a fork copies one thread only.
"""

from __future__ import annotations

from slidetriage.models.nuclei import flood_kernel, outline_kernel, quality_kernel, shape_kernel

from . import looking, station_part

__all__ = [
    "flood_kernel",
    "looking",
    "outline_kernel",
    "quality_kernel",
    "shape_kernel",
    "station_part",
]
