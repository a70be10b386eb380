"""Reads tiled TIFF slides directly: compressed tiles from the file to the JPEG decoder."""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import PixelsUnreadable

from .area import AxisWeights, axis_weights, filter_area
from .levels import choose_level
from .messages import without_folder
from .slide import FINER, Box, Pixels, Slide, SlideReader
from .tiff_layout import TiffLevel, Unsuited, read_layout
from .tiff_tiles import Source, TileStore

LARGEST_CANVAS_PX = 1 << 22
"""Decoded pixels held at once, 12 MiB; larger requests are read in parts."""

SHRUNK_PER_PX = 3.0
"""Least shrunk pixels for each side of an output pixel where their edges do not coincide: with one,
interpolating between them differs from the true means by 2 to 8 grey levels; with three, by 0.4."""

ALIGNED_PX = 0.02
"""Shrunk pixels by which edges may differ and still be said to coincide."""

_DAMAGE = (ValueError, RuntimeError, OSError, MemoryError)
"""What decoders and the file raise for damaged data."""


class TiffReader:
    """A `SlideReader` over the tiles of a TIFF file; threads may share one.

    The level is chosen by `choose_level`. JPEG tiles are shrunk by 2, 4 or 8 while they are decoded
    as far as they stay finer than asked for, and the area filter does the rest.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._levels: tuple[TiffLevel, ...] = ()
        self._store: TileStore | None = None
        self._opening = threading.Lock()
        self._scratch = _Scratch()
        self._sources: dict[int, list[Source]] = {}
        self._chosen: dict[tuple[float, float, float], int] = {}

    def __reduce__(self) -> tuple[type[TiffReader], tuple[Slide]]:
        return TiffReader, (self._slide,)

    @property
    def slide(self) -> Slide:
        """The slide that is read."""
        return self._slide

    @property
    def levels(self) -> tuple[TiffLevel, ...]:
        """The slide's levels as they lie in the file."""
        self._open()
        return self._levels

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
        scale_x, scale_y = box.width / width_px, box.height / height_px
        index = self._chosen.get((scale_x, scale_y, finer))
        if index is None:
            index = choose_level(self._slide.levels, scale_x, scale_y, finer=finer)
            self._chosen[scale_x, scale_y, finer] = index
        if out is None:
            out = np.empty((height_px, width_px, 3), np.uint8)
        return self._read(self.source(index, box, width_px, height_px), box, out)

    def read_level(self, index: int, box: Box, width_px: int, height_px: int) -> Pixels:
        """The same from the level of that index, whatever its scale."""
        out = np.empty((height_px, width_px, 3), np.uint8)
        return self._read(self.source(index, box, width_px, height_px), box, out)

    def source(self, index: int, box: Box, width_px: int, height_px: int) -> Source:
        """How the level of that index is decoded for a read of it."""
        sources = self._open_sources(index)
        down = self._slide.levels[index].downsample
        most = box.width / width_px / down * 1.5
        for source in sources[:-1]:
            side = down * source.shrink
            if (
                source.shrink <= most
                and _fits(box.x / side, box.width / side, width_px)
                and _fits(box.y / side, box.height / side, height_px)
            ):
                return source
        return sources[-1]

    def _open_sources(self, index: int) -> list[Source]:
        """The ways a level can be decoded, the one that shrinks most first."""
        sources = self._sources.get(index)
        if sources is None:
            level = self.levels[index]
            sources = [Source(index, level, shrink) for shrink in level.shrinks]
            self._sources[index] = sources
        return sources

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        self._store = None

    def _open(self) -> TileStore:
        with self._opening:
            store = self._store
            if store is None:
                path = self._slide.path
                try:
                    if not self._levels:
                        sizes = tuple((n.width_px, n.height_px) for n in self._slide.levels)
                        self._levels = read_layout(path, sizes)
                    store = self._store = TileStore(path, self._slide.background_rgb)
                except (OSError, Unsuited) as error:
                    said = without_folder(path, error)
                    raise PixelsUnreadable(
                        f"{path.name}: the file cannot be opened again: {said}.",
                        mend="It was moved or changed, or its disk is gone; run again.",
                    ) from error
            return store

    def _read(self, source: Source, box: Box, out: NDArray[np.uint8]) -> Pixels:
        """Read `box` into `out`, in halves while it is too large to decode at once."""
        height, width, _ = out.shape
        down = self._slide.levels[source.index].downsample * source.shrink
        if box.width * box.height / down**2 <= LARGEST_CANVAS_PX or max(height, width) == 1:
            scanned = self._read_at_once(source, box, out)
            if scanned is None:
                return Pixels(out, _all_valid(height, width), complete=True)
            return Pixels(out, scanned)
        if width >= height:
            half, step = width // 2, box.width / width
            first = Box(box.x, box.y, half * step, box.height)
            second = Box(box.x + half * step, box.y, (width - half) * step, box.height)
            outs, axis = (out[:, :half], out[:, half:]), 1
        else:
            half, step = height // 2, box.height / height
            first = Box(box.x, box.y, box.width, half * step)
            second = Box(box.x, box.y + half * step, box.width, (height - half) * step)
            outs, axis = (out[:half], out[half:]), 0
        one, other = (self._read(source, *part) for part in zip((first, second), outs, strict=True))
        valid = np.concatenate([one.valid, other.valid], axis=axis)
        return Pixels(out, valid, complete=one.complete and other.complete)

    def _read_at_once(
        self, source: Source, box: Box, out: NDArray[np.uint8]
    ) -> NDArray[np.bool_] | None:
        """Returns what of `out` was scanned; None for all of it."""
        height, width, _ = out.shape
        down = self._slide.levels[source.index].downsample * source.shrink
        top, left = round(box.y / down), round(box.x / down)
        if (
            left * down == box.x
            and top * down == box.y
            and width * down == box.width
            and height * down == box.height
        ):
            return self._paste_or_raise(source, box, (left, top), out)
        rows = axis_weights(height, box.y / down, box.height / down / height)
        columns = axis_weights(width, box.x / down, box.width / down / width)
        (top, bottom), (left, right) = rows.span, columns.span
        canvas = self._scratch.take("canvas", (bottom - top, right - left, 3))
        scanned = self._paste_or_raise(source, box, (left, top), canvas)
        rows, columns = rows.starting_at(top), columns.starting_at(left)
        filter_area(canvas, rows, columns, out)
        return None if scanned is None else _apply(scanned, rows, columns) > 0.5

    def _paste_or_raise(
        self, source: Source, box: Box, corner: tuple[int, int], canvas: NDArray[np.uint8]
    ) -> NDArray[np.bool_] | None:
        """`_paste`, with damage as `PixelsUnreadable` and the file to be opened anew."""
        try:
            return self._paste(source, *corner, canvas)
        except _DAMAGE as error:
            self.close()
            raise PixelsUnreadable(
                f"{self._slide.path.name}: level {source.index} cannot be decoded near level-0 "
                f"pixel ({box.x:.0f}, {box.y:.0f}): {without_folder(self._slide.path, error)}.",
                mend="Copy the slide again from the scanner and compare checksums.",
            ) from error

    def _paste(
        self, source: Source, left: int, top: int, canvas: NDArray[np.uint8]
    ) -> NDArray[np.bool_] | None:
        """Paint the tiles under the canvas; returns what was scanned, None for all of it."""
        level, store = source.level, self._open()
        tall = level.tile_height_px // source.shrink
        wide = level.tile_width_px // source.shrink
        height, width, _ = canvas.shape
        rows = range(max(0, top // tall), min(level.rows, -(-(top + height) // tall)))
        columns = range(max(0, left // wide), min(level.columns, -(-(left + width) // wide)))
        scanned = None
        inside = top >= 0 and top + height <= level.rows * tall
        if not (inside and left >= 0 and left + width <= level.columns * wide):
            canvas[:] = self._slide.background_rgb
            scanned = np.zeros((height, width), np.bool_)
        # A tile within the canvas is wanted by no neighbour, so it need not be kept.
        direct = wide == width and canvas.flags.c_contiguous
        scratch = None if direct else self._scratch.take("tile", (tall, wide, 3))
        for place in product(rows, columns):
            y, x = place[0] * tall - top, place[1] * wide - left
            if y >= 0 and x >= 0 and y + tall <= height and x + wide <= width:
                here = (slice(y, y + tall), slice(x, x + wide))
                tile = store.tile(source, place, canvas[here] if scratch is None else scratch)
                pixels = tile.rgb
            else:
                here = (slice(max(0, y), y + tall), slice(max(0, x), x + wide))
                tile = store.tile(source, place)
                pixels = tile.rgb[max(0, -y) : height - y, max(0, -x) : width - x]
            canvas[here] = pixels  # onto itself where it was decoded in place, which costs nothing
            if tile.valid is not None and scanned is None:
                scanned = np.ones((height, width), np.bool_)
            if scanned is not None:
                part = tile.valid if tile.valid is not None else np.ones((tall, wide), np.bool_)
                scanned[here] = part[max(0, -y) : height - y, max(0, -x) : width - x]
        return scanned


class _Scratch(threading.local):
    """Memory of each thread that is used again: fresh memory costs as much as decoding into it."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """An array of any content; the last one of that name must not be used any more."""
        size = prod(shape)
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = np.empty(size, np.uint8)
        return array[:size].reshape(shape)


def _fits(start: float, length: float, count: int) -> bool:
    """Whether shrunk pixels from `start` over `length` give the means of `count` pixels."""
    ratio = length / count
    if ratio >= SHRUNK_PER_PX:
        return True
    whole = round(ratio)
    return whole >= 1 and abs(start - round(start)) + abs(length - whole * count) <= ALIGNED_PX


@lru_cache(64)
def _all_valid(height: int, width: int) -> NDArray[np.bool_]:
    return np.broadcast_to(np.True_, (height, width))


def _apply(
    scanned: NDArray[np.bool_], rows: AxisWeights, columns: AxisWeights
) -> NDArray[np.float32]:
    """The area filter over a mask: the share of each output pixel that was scanned."""
    share: NDArray[np.float32] = rows.matrix(scanned.shape[0]) @ scanned.astype(np.float32)
    share = (columns.matrix(scanned.shape[1]) @ share.T).T
    return share


_proof: type[SlideReader] = TiffReader
