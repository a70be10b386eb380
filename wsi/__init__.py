"""What the slide is, and its pixels: opening, physical scale, reading. Owns OpenSlide."""

from .companions import hash_slide, slide_files
from .dicom import DICOM_SUFFIXES, dicom_series
from .image_reader import SUFFIXES as IMAGE_SUFFIXES
from .opening import open_reader, open_slide
from .phantom import paint_phantom
from .phantom_scene import PhantomSpec, PhantomTruth, plan_phantom
from .resample import area_weights
from .slide import Box, Level, Mpp, MppSource, Pixels, Slide, SlideReader

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "Box",
    "Level",
    "Mpp",
    "MppSource",
    "PhantomSpec",
    "PhantomTruth",
    "Pixels",
    "Slide",
    "SlideReader",
    "area_weights",
    "dicom_series",
    "hash_slide",
    "open_reader",
    "open_slide",
    "paint_phantom",
    "plan_phantom",
    "slide_files",
]
