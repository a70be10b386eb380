"""What OME-TIFF says and OpenSlide does not look for: the pyramid's other levels, and the mpp."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import tifffile

_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
"""Micrometres per unit; the micro sign and the Greek letter are both in use."""


@dataclass(frozen=True, slots=True)
class OmeImage:
    """The first image of an OME-TIFF."""

    sizes: tuple[tuple[int, int], ...]
    """Width and height in px of each level, the largest first."""
    mpp: tuple[str | None, str | None]
    """Physical size of a pixel in um along x and y, as text; None where it is not stated."""


def read_ome(path: Path) -> OmeImage | None:
    """The first image of an OME-TIFF; None where the file is no OME-TIFF."""
    with tifffile.TiffFile(path) as tiff:
        if not tiff.is_ome:
            return None
        sizes = {(int(page.imagewidth), int(page.imagelength)) for page in pyramid(tiff)}
        description = str(tiff.ome_metadata or "")
    # The first Pixels element is the first image's. Only its attributes are wanted, and a pattern
    # expands no entities.
    pixels = re.search(r"<(?:\w+:)?Pixels\s([^>]*)>", description)
    attributes = pixels.group(1) if pixels else ""
    return OmeImage(
        tuple(sorted(sizes, reverse=True)), (_size(attributes, "X"), _size(attributes, "Y"))
    )


def pyramid(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The first image of an OME-TIFF and its smaller ones, which lie in sub-directories."""
    first = tiff.pages[0]
    return [
        page
        for page in (first, *(first.pages or ()))
        if isinstance(page, tifffile.TiffPage) and page.is_tiled
    ]


def _size(attributes: str, axis: str) -> str | None:
    """PhysicalSize of one axis in um; the unit is um unless stated (OME schema 2016-06)."""
    value = re.search(rf'\bPhysicalSize{axis}="([^"]+)"', attributes)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', attributes)
    factor = _UM.get(unit.group(1) if unit else "um")
    if value is None or factor is None:
        return None
    try:
        return repr(float(value.group(1)) * factor)
    except ValueError:
        return value.group(1)
