"""What the slide is, and its pixels: opening, physical scale, reading. Owns OpenSlide."""

from .slide import Box, Level, Mpp, Pixels, Slide, SlideReader

__all__ = ["Box", "Level", "Mpp", "Pixels", "Slide", "SlideReader"]
