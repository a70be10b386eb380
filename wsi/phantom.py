"""Paints a phantom slide into a file: a pyramidal tiled JPEG TIFF that OpenSlide opens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from slidetriage.errors import OutputError

from .phantom_paint import render_pixels
from .phantom_scene import PhantomScene, PhantomSpec, PhantomTruth, plan_phantom

TILE_PX = 256
DOWNSAMPLE = 4
"""From each level to the next."""

_QUALITY = 87

Image = NDArray[np.uint8]


def paint_phantom(path: str | os.PathLike[str], spec: PhantomSpec | None = None) -> PhantomTruth:
    """Write the slide of `spec` to `path` (.tif) and say what is in it.

    Each level is a full page, a mean of the level before it, whose resolution tag states the mpp.
    The slide is painted strip by strip; the smaller levels wait in a file beside `path`. The
    file appears whole or not at all. Raises `OutputError` where it cannot be written.
    """
    scene = plan_phantom(spec or PhantomSpec())
    target = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            whole = Path(folder) / "slide.tif"
            # Many small products: threads would cost ten times what they save.
            with threadpool_limits(1):
                _write(scene, whole)
            whole.replace(target)
    except OSError as error:
        raise OutputError(
            f"The phantom slide cannot be written to {target}: {error.strerror or error}.",
            mend="Name a file in a folder that exists, is writable and has room.",
        ) from error
    return scene.truth


def _write(scene: PhantomScene, path: Path) -> None:
    # Imported here because it takes a third of a second, which only writers should pay.
    import tifffile

    spec = scene.spec
    levels = _reduced_levels(spec.size_px, path.parent)
    width, height = spec.size_px
    with tifffile.TiffWriter(path, bigtiff=width * height > 2**30) as tif:
        for depth in range(len(levels) + 1):
            scale = DOWNSAMPLE**depth
            if depth > 1:
                for top, strip in enumerate(_strips(levels[depth - 2])):
                    _average_into(levels[depth - 1], strip, top * TILE_PX)
            shape = (height, width) if depth == 0 else levels[depth - 1].shape[:2]
            source = _paint_strips(scene, levels) if depth == 0 else _strips(levels[depth - 1])
            tif.write(
                _tiles(source),
                shape=(*shape, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": _QUALITY},
                subfiletype=int(depth > 0),
                resolution=(1e4 / (spec.mpp * scale),) * 2,
                resolutionunit="CENTIMETER",
                software="slidetriage phantom",
                description=f"Painted phantom, seed {spec.seed}; no real tissue"
                if not depth
                else None,
                metadata=None,
                maxworkers=1,
            )


def _reduced_levels(size_px: tuple[int, int], folder: Path) -> list[Image]:
    """Room for the levels past the first, on disk.

    The last is at most 1,024 px long: rounding its size further would shift it visibly.
    """
    levels: list[Image] = []
    width, height = size_px
    while max(width, height) > 1024:
        width, height = width // DOWNSAMPLE, height // DOWNSAMPLE
        file = folder / f"level-{len(levels) + 1}"
        levels.append(np.memmap(file, np.uint8, "w+", shape=(height, width, 3)))
    return levels


def _paint_strips(scene: PhantomScene, levels: list[Image]) -> Iterator[Image]:
    """Strips of level 0 from the top, each averaged into the next level as it passes."""
    width, height = scene.spec.size_px
    for top in range(0, height, TILE_PX):
        strip = render_pixels(scene, (0, top, width, min(TILE_PX, height - top)), scene.spec.mpp)
        if levels:
            _average_into(levels[0], strip, top)
        yield strip


def _strips(level: Image) -> Iterator[Image]:
    for top in range(0, level.shape[0], TILE_PX):
        yield np.asarray(level[top : top + TILE_PX])


def _average_into(level: Image, strip: Image, top: int) -> None:
    """Average `strip`, which starts at row `top` of the level above, into its rows of `level`."""
    first = top // DOWNSAMPLE
    rows = min(strip.shape[0] // DOWNSAMPLE, level.shape[0] - first)
    if rows <= 0:
        return
    part = strip[: rows * DOWNSAMPLE, : level.shape[1] * DOWNSAMPLE]
    size = (level.shape[1], rows)
    level[first : first + rows] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)


def _tiles(strips: Iterator[Image]) -> Iterator[Image]:
    """Whole tiles in reading order; at the edges the last pixel is repeated, as scanners do."""
    for strip in strips:
        columns = ceil(strip.shape[1] / TILE_PX)
        pad = ((0, TILE_PX - strip.shape[0]), (0, columns * TILE_PX - strip.shape[1]), (0, 0))
        padded = np.pad(strip, pad, mode="edge")
        for left in range(0, padded.shape[1], TILE_PX):
            yield np.ascontiguousarray(padded[:, left : left + TILE_PX])
