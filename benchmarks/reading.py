"""Tiles per second of every reader, side by side on one mosaic of real tissue.

    python benchmarks/reading.py [--json] [--quick] [--mpp 0.25] [--tile 256] [--work DIR]

Each reader delivers the same neighbouring tiles as RGB arrays at exactly the mpp asked for; the
median of interleaved repeats is printed. `decode_only` is a bare loop that decodes the compressed
tiles under them, each once and at the scale that ours decodes them at, and does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import openslide
from mosaic import default_data, make_mosaic
from numpy.typing import NDArray

from slidetriage.tiling import TileBatch, TileGrid, Tiles, read_tiles
from slidetriage.wsi import Box, Slide, open_reader, open_slide
from slidetriage.wsi.tiff_reader import TiffReader

SCALES = (0.25, 0.5, 1.0, 4.0)
BATCH, BLOCK = 64, 8

Reading = Callable[[], None]
"""Reads all tiles once."""

Opening = Callable[[], Reading]
"""Opens the file anew, with empty caches; what it returns is timed."""


pools = {threads: ThreadPoolExecutor(threads) for threads in (1, 2, 4, 8)}
"""Threads that stay, as those of a station do."""


def choose_tiles(
    slide: Slide, *, mpp: float, tile_px: int, side: int | None = None, batch: int = BATCH
) -> list[TileBatch]:
    """A square of at most `side` x `side` tiles in the middle of the slide, or all there are."""
    grid = TileGrid.over(slide, tile_px=tile_px, stride_px=tile_px, mpp=mpp)
    # Whole tiles only where some are chosen, so that no reader is timed on the slide's edge.
    whole = (
        [grid.rows, grid.columns]
        if side is None
        else [
            int(length_um / (tile_px * mpp))
            for length_um in (slide.height_px * slide.mpp.y, slide.width_px * slide.mpp.x)
        ]
    )
    tall, wide = (min(side or count, count) for count in whole)
    rows, columns = (part.ravel() for part in np.mgrid[:tall, :wide])
    order = np.lexsort((columns, rows, columns // BLOCK, rows // BLOCK))
    rows = (rows[order] + (whole[0] - tall) // 2).astype(np.int32)
    columns = (columns[order] + (whole[1] - wide) // 2).astype(np.int32)
    tiles = Tiles(grid, rows, columns, np.ones(len(rows), np.float32))
    return [
        TileBatch(slide, tiles[start : start + batch], start)
        for start in range(0, len(tiles), batch)
    ]


def read_ours(batches: list[TileBatch], threads: int) -> Opening:
    """The product's own way: threads share a reader, each with its memory, as a station has it."""
    memory = threading.local()
    tile_px = batches[0].tiles.grid.tile_px

    def opening() -> Reading:
        reader = open_reader(batches[0].slide)
        reader.read(Box(0, 0, 16, 16), 16, 16)

        def read(batch: TileBatch) -> bool:
            if not hasattr(memory, "tiles"):
                memory.tiles = np.zeros((BATCH, tile_px, tile_px, 3), np.uint8)
            return bool(read_tiles(reader, batch, memory=memory.tiles).readable.all())

        def reading() -> None:
            if threads == 1:
                assert all(map(read, batches))
            else:
                assert all(pools[threads].map(read, batches))

        return reading

    return opening


def decode_only(batches: list[TileBatch], threads: int) -> Opening:
    """The compressed tiles under the same tiles, decoded and thrown away."""
    reader = TiffReader(batches[0].slide)
    grid = batches[0].tiles.grid
    scale = grid.mpp / grid.mpp_x
    index = max(i for i, n in enumerate(reader.slide.levels) if n.downsample <= scale * 1.001)
    first = grid.box(int(batches[0].tiles.rows[0]), int(batches[0].tiles.columns[0]))
    source = reader.source(index, first, grid.tile_px, grid.tile_px)
    level, down = source.level, reader.slide.levels[index].downsample
    needed: set[int] = set()
    for box in boxes(batches):
        rows, columns = (
            range(int(start / down // tile), int(np.ceil((start + length) / down / tile - 1e-6)))
            for start, length, tile in (
                (box[1], box[3], level.tile_height_px), (box[0], box[2], level.tile_width_px),
            )
        )  # fmt: skip
        needed.update(row * level.columns + column for row in rows for column in columns)
    places = [(int(level.offsets[n]), int(level.byte_counts[n])) for n in sorted(needed)]

    def part(mine: list[tuple[int, int]]) -> None:
        file = os.open(reader.slide.path, os.O_RDONLY)
        for offset, count in mine:
            level.codec.decode(os.pread(file, count, offset), source.shrink)
        os.close(file)

    def reading() -> None:
        list(pools[threads].map(part, [places[k::threads] for k in range(threads)]))

    return lambda: reading


def boxes(batches: list[TileBatch]) -> Iterator[tuple[float, float, float, float]]:
    """Of every tile: x, y, width, height in level-0 px."""
    for batch in batches:
        for row, column in zip(batch.tiles.rows, batch.tiles.columns, strict=True):
            box = batch.tiles.grid.box(int(row), int(column))
            yield box.x, box.y, box.width, box.height


def read_openslide(batches: list[TileBatch], threads: int) -> Opening:
    """OpenSlide's best level for the scale, then OpenCV's area filter where sizes differ."""
    tile_px = batches[0].tiles.grid.tile_px

    def opening() -> Reading:
        slide = openslide.OpenSlide(batches[0].slide.path)

        def one(box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
            x, y, width, height = box
            level = slide.get_best_level_for_downsample(width / tile_px * 1.001)
            down = slide.level_downsamples[level]
            size = (round(width / down), round(height / down))
            region = slide.read_region((round(x), round(y)), level, size)
            return shrink(np.asarray(region.convert("RGB")), tile_px)

        return lambda: run(one, boxes(batches), threads)

    return opening


def read_cucim(batches: list[TileBatch], threads: int) -> Opening:
    """The same through cuCIM on the CPU."""
    from cucim import CuImage

    tile_px, slide = batches[0].tiles.grid.tile_px, batches[0].slide
    downs = [level.downsample for level in slide.levels]

    def opening() -> Reading:
        image = CuImage(str(slide.path))

        def one(box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
            x, y, width, height = box
            level = max(i for i, d in enumerate(downs) if d <= width / tile_px * 1.001)
            size = (round(width / downs[level]), round(height / downs[level]))
            region = image.read_region((round(x), round(y)), size, level=level)
            return shrink(np.asarray(region), tile_px)

        return lambda: run(one, boxes(batches), threads)

    return opening


def read_tiatoolbox(batches: list[TileBatch], threads: int) -> Opening:
    """TIAToolbox's `read_rect` at the mpp."""
    with contextlib.redirect_stdout(io.StringIO()):
        from tiatoolbox.wsicore.wsireader import WSIReader

    grid = batches[0].tiles.grid

    def opening() -> Reading:
        slide = WSIReader.open(batches[0].slide.path)

        def one(box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
            x, y, _, _ = box
            size = (grid.tile_px, grid.tile_px)
            region: NDArray[np.uint8] = slide.read_rect(
                (round(x), round(y)), size, resolution=grid.mpp, units="mpp"
            )
            return region

        return lambda: run(one, boxes(batches), threads)

    return opening


def run(
    one: Callable[[tuple[float, float, float, float]], NDArray[np.uint8]],
    all_boxes: Iterator[tuple[float, float, float, float]],
    threads: int,
) -> None:
    """Read every box."""
    if threads == 1:
        for box in all_boxes:
            one(box)
    else:
        for _ in pools[threads].map(one, all_boxes):
            pass


def shrink(region: NDArray[np.uint8], tile_px: int) -> NDArray[np.uint8]:
    """To the tile's size by OpenCV's area filter."""
    if region.shape[:2] == (tile_px, tile_px):
        return region
    resized: NDArray[np.uint8] = cv2.resize(
        region, (tile_px, tile_px), interpolation=cv2.INTER_AREA
    )
    return resized


READERS = {
    "ours": read_ours,
    "openslide": read_openslide,
    "tiatoolbox": read_tiatoolbox,
    "decode_only": decode_only,
    "cucim": read_cucim,
}


def measure(
    slide: Slide, mpp: float, *, tile_px: int, side: int, repeats: int, threads: int
) -> dict[str, float]:
    """Median tiles/s of every reader that is installed."""
    batches = choose_tiles(slide, mpp=mpp, tile_px=tile_px, side=side)
    count = sum(len(batch.tiles) for batch in batches)
    readings: dict[str, Opening] = {}
    for name, make in READERS.items():
        with contextlib.suppress(ImportError):
            readings[name] = make(batches, threads)
    times: dict[str, list[float]] = {name: [] for name in readings}
    for repeat in range(repeats + 1):  # the first warms up
        for name, opening in readings.items():
            reading = opening()
            begin = time.perf_counter()
            reading()
            if repeat:
                times[name].append(time.perf_counter() - begin)
    return {name: round(count / median(taken), 1) for name, taken in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--quick", action="store_true", help="a smaller slide and fewer repeats")
    parser.add_argument("--mpp", type=float, default=0.25, help="of level 0 of the mosaic")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES, help="mpp of the tiles")
    parser.add_argument("--tile", type=int, default=256, help="side of a tile in px")
    parser.add_argument("--threads", type=int, nargs="+", default=None, choices=list(pools))
    parser.add_argument("--work", type=Path, help="where mosaics are kept")
    parser.add_argument("--data", type=Path, default=default_data())
    args = parser.parse_args()
    cv2.setNumThreads(1)
    side = 8_192 if args.quick else 24_576
    work = args.work or Path(tempfile.gettempdir()) / "slidetriage-benchmarks"
    work.mkdir(parents=True, exist_ok=True)
    path = make_mosaic(
        work / f"mosaic-{side}-{args.mpp:g}.svs", width_px=side, mpp=args.mpp, data=args.data
    )
    slide = open_slide(path)
    figures: dict[str, dict[str, float]] = {}
    for threads in args.threads or ((1,) if args.json else (1, 2)):
        figures = {
            f"{scale:g}": measure(
                slide, scale, tile_px=args.tile, side=8 if args.quick else 16,
                repeats=3 if args.quick else 5, threads=threads,
            )
            for scale in args.scales
        }  # fmt: skip
        if not args.json:
            show(path.name, threads, figures)
    if args.json:
        print(json.dumps(figures))


def show(name: str, threads: int, figures: dict[str, dict[str, float]]) -> None:
    """A table, with how many times as fast ours is."""
    print(f"{name}, {threads} thread(s): tiles/s (ours is so many times as fast)")
    for scale, rates in figures.items():
        others = "  ".join(
            f"{reader} {rate:.0f} ({rates['ours'] / rate:.2f})" for reader, rate in rates.items()
        )
        print(f"  {scale:>5} mpp  {others}")


if __name__ == "__main__":
    main()
