"""Reads plain TIFF, PNG and JPEG images as one-level slides, where the user states the mpp."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from slidetriage.errors import PixelsUnreadable, SlideNotReadable

from .resample import area_weights, flatten_alpha, resample
from .slide import FINER, Box, Pixels, Slide, SlideReader

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")

_FORMATS = ("TIFF", "PNG", "JPEG")

_DAMAGE = (
    OSError, ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, struct.error,
)  # fmt: skip
"""What Pillow raises at damaged files: it computes with whatever a tag holds, fractions too."""


class ImageReader:
    """A `SlideReader` over an image small enough to be held in memory."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._rgba: NDArray[np.uint8] | None = None

    def __reduce__(self) -> tuple[type[ImageReader], tuple[Slide]]:
        return ImageReader, (self._slide,)

    @property
    def slide(self) -> Slide:
        """The slide that is read."""
        return self._slide

    def read(
        self,
        box: Box,
        width_px: int,
        height_px: int,
        *,
        finer: float = FINER,
        out: NDArray[np.uint8] | None = None,
    ) -> Pixels:
        """Resample `box` to exactly `width_px` x `height_px` pixels (see `SlideReader`)."""
        del finer  # there is one level
        if self._rgba is None:
            self._rgba = _load(self._slide.path)
        height, width, _ = self._rgba.shape
        rows = area_weights(height_px, box.y, box.height / height_px, height)
        columns = area_weights(width_px, box.x, box.width / width_px, width)
        used_rows, used_columns = _span(rows.indices), _span(columns.indices)
        part = self._rgba[used_rows, used_columns]
        sampled = resample(part, rows[:, used_rows], columns[:, used_columns])
        rgb, valid = flatten_alpha(sampled, self._slide.background_rgb)
        if out is not None:
            out[:] = rgb
        return Pixels(rgb if out is None else out, valid)

    def close(self) -> None:
        """Release the pixels; a later read loads them again."""
        self._rgba = None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in px of a plain 8-bit RGB or RGBA image, from its header.

    Raises `SlideNotReadable` (E_NOT_SLIDE, E_NOT_RGB, E_TOO_LARGE).
    """
    with _open(path) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise SlideNotReadable(
                f"{path.name}: pixels are of kind {image.mode!r}, not 8-bit RGB.",
                mend="Export the image as 8-bit RGB.",
                code="E_NOT_RGB",
            )
        return image.size


def _open(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns at 89 Mpx and refuses at twice that; the refusal is the limit here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(path, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise SlideNotReadable(
                f"{path.name}: too large to be read as one plain image ({error}).",
                mend="Convert it to a tiled pyramidal TIFF.",
                code="E_TOO_LARGE",
            ) from error
        except (UnidentifiedImageError, *_DAMAGE) as error:
            raise SlideNotReadable(
                f"{path.name}: neither OpenSlide nor Pillow can open it.",
                mend="Check that the file is complete and is a slide or a TIFF, PNG or JPEG image.",
            ) from error


def _load(path: Path) -> NDArray[np.uint8]:
    with _open(path) as image:
        try:
            rgba = np.array(image.convert("RGBA"))
        except _DAMAGE as error:
            raise PixelsUnreadable(
                f"{path.name}: the image cannot be decoded ({error}).",
                mend="Copy the file again and compare checksums.",
            ) from error
    alpha = rgba[..., 3:].astype(np.uint16)
    rgba[..., :3] = (rgba[..., :3] * alpha + 127) // 255
    return rgba


def _span(indices: NDArray[np.int32]) -> slice:
    return slice(int(indices.min()), int(indices.max()) + 1) if len(indices) else slice(0, 0)


_proof: type[SlideReader] = ImageReader
