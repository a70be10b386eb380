"""What the slide is, and its pixels: opening, physical scale, reading. Owns OpenSlide.

The phantom is loaded when first used: it draws with OpenCV, which reading slides does without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .companions import file_signatures, hash_slide, slide_files
from .dicom import DICOM_SUFFIXES, dicom_series
from .image_reader import SUFFIXES as IMAGE_SUFFIXES
from .opening import open_reader, open_slide
from .preflight import check_file
from .resample import area_weights
from .slide import Box, Level, Mpp, MppSource, Pixels, Slide, SlideReader

if TYPE_CHECKING:
    from .phantom import paint_phantom
    from .phantom_reader import PhantomReader
    from .phantom_scene import PhantomScene, PhantomSpec, PhantomTruth, plan_phantom

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "Box",
    "Level",
    "Mpp",
    "MppSource",
    "PhantomReader",
    "PhantomScene",
    "PhantomSpec",
    "PhantomTruth",
    "Pixels",
    "Slide",
    "SlideReader",
    "area_weights",
    "check_file",
    "dicom_series",
    "file_signatures",
    "hash_slide",
    "open_reader",
    "open_slide",
    "paint_phantom",
    "plan_phantom",
    "slide_files",
]

_HOME = {
    "PhantomReader": ".phantom_reader",
    "PhantomScene": ".phantom_scene",
    "PhantomSpec": ".phantom_scene",
    "PhantomTruth": ".phantom_scene",
    "paint_phantom": ".phantom",
    "plan_phantom": ".phantom_scene",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
