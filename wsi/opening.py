"""Opens a slide: understands it, settles its physical scale, and picks the reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import openslide

from slidetriage.errors import ScaleError, SlideNotReadable, SlideTriageError

from .choosing import choose_reader
from .companions import slide_files
from .dicom import mislabelled_ycbcr
from .image_reader import SUFFIXES, ImageReader, image_size
from .levels import make_levels
from .messages import without_folder
from .ome import OmeImage, read_ome
from .openslide_reader import OpenSlideReader
from .preflight import LARGEST_SLIDE_PX, TABLE_DAMAGE, TiffFacts, check_file, check_tiff, is_tiff
from .scale import objective_warnings, parse_mpp, resolve_mpp
from .slide import Box, Level, MppSource, ReaderName, Slide, SlideReader
from .tiff_reader import TiffReader

_WHITE = (255, 255, 255)

_READERS: dict[ReaderName, Callable[[Slide], SlideReader]] = {
    "tiff": TiffReader,
    "openslide": OpenSlideReader,
    "image": ImageReader,
}


def open_slide(
    path: str | Path,
    *,
    mpp: float | None = None,
    mpp_source: MppSource = "command line",
    plain: bool = False,
) -> Slide:
    """Open the slide at `path`, look at it, and close it again.

    Parameters
    ----------
    path
        Anything OpenSlide 4 opens, or a plain 8-bit RGB TIFF, PNG or JPEG image.
    mpp
        Micrometres per level-0 px where the file does not say or is wrong; plain images need it.
    mpp_source
        Who stated `mpp`.
    plain
        Whether to read through OpenSlide even where the tiles can be read directly.

    Raises
    ------
    SlideNotFound, SlideNotReadable
        The file is missing, damaged or no slide.
    ScaleError
        No mpp (E_NO_MPP), or an impossible one (E_BAD_MPP).
    """
    path = Path(path)
    check_file(path)
    facts = check_tiff(path) if is_tiff(path) else None
    try:
        with openslide.OpenSlide(path) as handle:
            ome = read_ome(path) if facts else None
            slide = _describe(path, handle, (mpp, mpp_source), ome)
            if facts is not None:
                if mpp is None:
                    _check_first(slide, facts)
                slide = replace(slide, warnings=slide.warnings + facts.warnings)
            chosen = choose_reader(slide, handle, ome.sizes if ome else ())
            return _as_plain(slide, chosen) if plain else chosen
    except openslide.OpenSlideUnsupportedFormatError as error:
        if path.suffix.lower() in SUFFIXES:
            return _describe_image(path, mpp, mpp_source)
        raise SlideNotReadable(
            f"{path.name}: OpenSlide knows no slide format that fits this file.",
            mend="Check that it is a slide, was copied whole, and lies beside its companion files.",
        ) from error
    except TABLE_DAMAGE as error:
        if isinstance(error, SlideTriageError):
            raise
        raise SlideNotReadable(
            f"{path.name}: the file's tables make no sense ({without_folder(path, error)}).",
            mend="Copy it again from the scanner and compare sizes.",
            code="E_TRUNCATED",
        ) from error
    except openslide.OpenSlideError as error:
        raise SlideNotReadable(
            f"{path.name}: OpenSlide cannot open it: {without_folder(path, error)}.",
            mend="Copy it again from the scanner, or convert it to a pyramidal TIFF.",
        ) from error


def open_reader(slide: Slide) -> SlideReader:
    """The reader for a slide; it opens the file when it is first read."""
    return _READERS[slide.reader](slide)


def _as_plain(slide: Slide, chosen: Slide) -> Slide:
    """The slide read through OpenSlide from the same levels, as far as OpenSlide knows them."""
    levels = chosen.levels if len(chosen.levels) == len(slide.levels) else slide.levels
    return replace(slide, levels=levels, reader_reason="asked for")


def _check_first(slide: Slide, facts: TiffFacts) -> None:
    """Raise `ScaleError` (E_BAD_MPP) where the resolution may be that of another image.

    OpenSlide orders the images of a plain TIFF by size, but takes the resolution of the first.
    """
    width, height = facts.first_px
    if slide.vendor == "generic-tiff" and (width < slide.width_px or height < slide.height_px):
        raise ScaleError(
            f"{slide.path.name}: its first level is {width} x {height} px and not the largest, "
            f"{slide.width_px} x {slide.height_px} px, so that its resolution cannot be told.",
            mend="State the um per pixel of the largest with --mpp, or export the slide anew.",
            code="E_BAD_MPP",
        )


def _describe(
    path: Path,
    handle: openslide.OpenSlide,
    stated: tuple[float | None, MppSource],
    ome: OmeImage | None,
) -> Slide:
    properties: Mapping[str, str] = handle.properties
    name = path.name
    width, height = handle.dimensions
    if width <= 0 or height <= 0:
        raise SlideNotReadable(
            f"{name}: says it is {width} x {height} px.",
            mend="The file is damaged; export it again.",
        )
    if width * height > LARGEST_SLIDE_PX:
        raise SlideNotReadable(
            f"{name}: says it is {width} x {height} px.",
            mend="The file is damaged; export it again.",
            code="E_TOO_LARGE",
        )
    said = ome.mpp if ome else (None, None)
    in_file = (
        parse_mpp(said[0] or properties.get(openslide.PROPERTY_NAME_MPP_X), where=name),
        parse_mpp(said[1] or properties.get(openslide.PROPERTY_NAME_MPP_Y), where=name),
    )
    mpp, warnings = resolve_mpp(in_file, stated[0], source=stated[1], where=name)
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
    ycbcr = vendor == "dicom" and mislabelled_ycbcr(path)
    if ycbcr:
        warnings += ("the file says RGB but its JPEG frames are YCbCr; colours were converted",)
    power = _number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
    return Slide(
        path=path,
        files=slide_files(path),
        reader="openslide",
        vendor=vendor,
        width_px=width,
        height_px=height,
        levels=make_levels(handle.level_dimensions),
        mpp=mpp,
        bounds=_bounds(properties, width, height),
        objective_power=power,
        background_rgb=_colour(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)),
        ycbcr=ycbcr,
        warnings=warnings + objective_warnings(mpp, power),
    )


def _describe_image(path: Path, stated: float | None, source: MppSource) -> Slide:
    width, height = image_size(path)
    # A plain image's resolution tag is about printing, so it is not looked at.
    mpp, warnings = resolve_mpp((None, None), stated, source=source, where=path.name)
    return Slide(
        path=path,
        files=(path,),
        reader="image",
        vendor="plain image",
        width_px=width,
        height_px=height,
        levels=(Level(width, height, 1.0),),
        mpp=mpp,
        bounds=Box(0, 0, width, height),
        objective_power=None,
        background_rgb=_WHITE,
        warnings=warnings,
        reader_reason="a plain image, which OpenSlide does not open",
    )


def _bounds(properties: Mapping[str, str], width: int, height: int) -> Box:
    """The scanned part of level 0 (MIRAX, Leica, generic TIFF with missing edge tiles)."""
    keys = ("x", "y", "width", "height")
    stated = [_number(properties.get(f"openslide.bounds-{key}")) for key in keys]
    x, y, w, h = (math.nan if value is None else value for value in stated)
    inside = x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height
    return Box(x, y, w, h) if inside else Box(0, 0, width, height)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _colour(text: str | None) -> tuple[int, int, int]:
    try:
        red, green, blue = bytes.fromhex(text or "")
    except ValueError:
        return _WHITE
    return red, green, blue
