"""D: sizes, levels, scales and kinds of pixels that are odd or impossible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faults.painted import LEVEL, aperio, generic, means, paint
from faults.specimens import Specimen, done, rejected
from faults.tiff_parts import (
    BITS,
    COLOUR_MAP,
    EXTRA_SAMPLES,
    HEIGHT,
    LONG,
    PHOTOMETRIC,
    RATIONAL,
    RESOLUTION_UNIT,
    SAMPLE_FORMAT,
    SAMPLES,
    SHORT,
    TILE_COUNTS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    X_RESOLUTION,
    Y_RESOLUTION,
    Directory,
    Image8,
    as_jpeg,
    as_raw,
    tiled,
    write_parts,
)

EXPORT = "export|convert|copy it again"
SPARSE_PX = 65_000
STATE_IT = "--mpp|mpp column"


def make(here: Path) -> list[Specimen]:
    """Every specimen of section D."""
    return [*_sizes(here), *_scales(here), *_levels(here), *_kinds(here), *_contents(here)]


def _sizes(here: Path) -> list[Specimen]:
    found = []
    for name, tags in (("width", (WIDTH,)), ("height", (HEIGHT,)), ("both", (WIDTH, HEIGHT))):
        parts = generic()
        for tag in tags:
            parts[LEVEL].set(tag, LONG, 0)
        path = write_parts(here / f"no-{name}.tif", parts)
        found.append(rejected(39, path, "E_NOT_SLIDE", " 0 |invalid tiff", EXPORT, variant=name))
    declared = aperio()
    declared[LEVEL].set(WIDTH, LONG, 100_000).set(HEIGHT, LONG, 100_000)
    path = write_parts(here / "declared.svs", declared)
    found.append(rejected(40, path, "E_NOT_SLIDE E_TRUNCATED", "tiles|invalid tiff", EXPORT))
    for name, tag, side in (("wide", WIDTH, 2000), ("tall", HEIGHT, 1600)):
        parts = generic()
        parts[LEVEL].set(tag, LONG, side)
        path = write_parts(here / f"declared-{name}.tif", parts)
        found.append(
            rejected(
                40, path, "E_NOT_SLIDE E_TRUNCATED", "tiles|invalid tiff", EXPORT, variant=name
            )
        )
    short = generic()
    short[LEVEL].blocks = short[LEVEL].blocks[:100]
    path = write_parts(here / "short-table.tif", short)
    found.append(
        rejected(40, path, "E_NOT_SLIDE E_TRUNCATED", "tiles|invalid tiff", EXPORT, variant="table")
    )
    path = write_parts(here / "million.tif", [_empty(10**6, 512)], directories_first=True)
    found.append(rejected(41, path, "E_TOO_LARGE", "1000000 x 1000000", EXPORT))
    for name, side in (("2^31", 2**31 - 1), ("2^32", 2**32 - 1), ("600,000", 600_000)):
        parts = generic()
        parts[LEVEL].set(WIDTH, LONG, side).set(HEIGHT, LONG, side)
        path = write_parts(here / f"side {name}.tif", parts)
        found.append(rejected(41, path, "E_TOO_LARGE", " px", EXPORT, variant=name))
    path = write_parts(here / "sparse.tif", [_sparse()], directories_first=True)
    found.append(done(42, path))
    return found


def _empty(side: int, tile: int) -> Directory:
    """A level of which no tile was written."""
    count = (-(-side // tile)) ** 2
    directory = generic(np.zeros((16, 16, 3), np.uint8))[0]
    directory.blocks = []
    for tag in (TILE_OFFSETS, TILE_COUNTS):
        directory.tags[tag] = (LONG, bytes(4 * count))
    directory.set(WIDTH, LONG, side).set(HEIGHT, LONG, side)
    return directory.set(TILE_WIDTH, SHORT, tile).set(TILE_HEIGHT, SHORT, tile)


def _sparse() -> Directory:
    """A single level of 65,000 px square: tissue in the middle, a tile at two corners."""
    tile = 256
    columns = -(-SPARSE_PX // tile)
    directory = _empty(SPARSE_PX, tile)
    del directory.tags[TILE_OFFSETS], directory.tags[TILE_COUNTS]
    blocks = tiled(paint()[16:784, 116:884], tile).blocks
    middle = columns // 2
    kept = {(middle + n // 3) * columns + middle + n % 3: block for n, block in enumerate(blocks)}
    glass = as_jpeg(np.full((tile, tile, 3), 244, np.uint8))
    kept |= {0: glass, columns * columns - 1: glass}
    directory.blocks = [kept.get(number, b"") for number in range(columns * columns)]
    directory.offset_lies = {n: 0 for n in range(columns * columns) if n not in kept}
    return directory


def _scales(here: Path) -> list[Specimen]:
    without, unitless = generic(), generic()
    for directory in without:
        for tag in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT):
            del directory.tags[tag]
    for directory in unitless:
        directory.set(RESOLUTION_UNIT, SHORT, 1)
    found = [
        rejected(43, write_parts(here / f"{name}.tif", parts), "E_NO_MPP", STATE_IT, variant=name)
        for name, parts in (("aperio", aperio(mpp=None)), ("tags", without), ("unit", unitless))
    ]
    for text in ("0", "-2", "1e9", "1e-9", "60", "nan", "inf"):
        # OpenSlide keeps to itself what is no finite number.
        code = "E_BAD_MPP E_NO_MPP" if text in ("nan", "inf") else "E_BAD_MPP"
        path = write_parts(here / f"mpp {text}.svs", aperio(mpp=text))
        found.append(rejected(44, path, code, "um/px|number|mpp", STATE_IT, variant=text))
    # OpenSlide reads a decimal comma as what it is.
    found.append(done(44, write_parts(here / "mpp comma.svs", aperio(mpp="2,0")), variant="comma"))
    for text in ("0,25", "-1", "0", "nan", "inf", "1e9", "1e-9", "word"):
        path = write_parts(here / f"stated {text}.svs", aperio())
        found.append(
            Specimen(
                44, path, "REJECTED", ("E_BAD_MPP",), ("number|um/px", "decimal point|--mpp"),
                f"sheet {text}", {"mpp": text},
            )
        )  # fmt: skip
    uneven = write_parts(here / "uneven.tif", generic(mpp=(2.0, 2.2)))
    forty = write_parts(here / "forty.svs", aperio(power="40"))
    coarse = write_parts(here / "coarse.svs", aperio(mpp="32"))
    return [
        *found,
        done(45, uneven, "not square"),
        done(46, forty, "contradicts", "40"),
        rejected(55, coarse, "E_MPP_TOO_COARSE", "32 um/px", "--model"),
        *(
            rejected(
                55,
                write_parts(here / f"coarse-{mpp}.svs", aperio(mpp=mpp)),
                "E_MPP_TOO_COARSE",
                f"{mpp} um/px",
                "--model",
                variant=mpp,
            )
            for mpp in ("8", "4.6")
        ),
    ]


def _levels(here: Path) -> list[Specimen]:
    odd = paint()[:797, :997]
    return [
        done(47, write_parts(here / "odd-level.tif", generic(odd, means(odd)))),
        done(48, write_parts(here / "one-level.tif", generic(paint()))),
        rejected(
            49, write_parts(here / "grown.svs", aperio(means(paint(), 2), coarse=paint())),
            "E_NOT_SLIDE", "no slide format|level", f"{EXPORT}|copied whole",
            variant="aperio",
        ),
        rejected(
            49, write_parts(here / "grown.tif", generic(means(paint(), 2), paint())),
            "E_NOT_SLIDE E_BAD_MPP", "level", EXPORT, variant="generic",
        ),
    ]  # fmt: skip


def _kinds(here: Path) -> list[Specimen]:
    image = paint()[200:600, 200:700]
    grey = image.mean(2).astype(np.uint8)
    deep = image.astype(np.uint16) * 257
    four = np.concatenate([image, np.full((*grey.shape, 1), 255, np.uint8)], axis=2)
    kinds: dict[str, tuple[NDArray[np.generic], int]] = {
        "grey": (grey, 1),
        "two-channels": (image[..., :2], 1),
        "sixteen-bit": (deep, 2),
        "float": (image.astype(np.float32), 2),
        "rgba": (four, 2),
        "cmyk": (four, 5),
        "lab": (image, 8),
        "palette": (grey, 3),
        "fluorescence": (np.repeat(deep[..., :1], 5, axis=2), 1),
    }
    cause = "channel|palette|rgb|photometric"
    return [
        # What is transparent in RGBA is laid on the background (rule 8 of the design).
        done(50, write_parts(here / f"{name}.tif", [_raw(pixels, photometric)]), variant=name)
        if name == "rgba"
        else rejected(
            50, write_parts(here / f"{name}.tif", [_raw(pixels, photometric)]), "E_NOT_RGB",
            cause, EXPORT, variant=name,
        )
        for name, (pixels, photometric) in kinds.items()
    ]  # fmt: skip


def _raw(image: NDArray[np.generic], photometric: int) -> Directory:
    """A single level of pixels of any kind, stored as they are."""
    directory = tiled(image, 64, as_raw)  # type: ignore[arg-type]  # only its bytes are taken
    samples = 1 if image.ndim == 2 else image.shape[2]
    directory.set(SAMPLES, SHORT, samples).set(PHOTOMETRIC, SHORT, photometric)
    directory.set(BITS, SHORT, *[8 * image.dtype.itemsize] * samples)
    if image.dtype.kind == "f":
        directory.set(SAMPLE_FORMAT, SHORT, *[3] * samples)
    if photometric == 3:
        directory.set(COLOUR_MAP, SHORT, *[257 * value for value in range(256)] * 3)
    extra = samples - (1 if photometric == 1 else 3)
    if extra > 0 and photometric != 5:
        directory.set(EXTRA_SAMPLES, SHORT, *[2 if photometric == 2 else 0] * extra)
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        directory.set(tag, RATIONAL, 5_000_000, 1000)
    return directory.set(RESOLUTION_UNIT, SHORT, 3)


def _contents(here: Path) -> list[Specimen]:
    def flat(colour: tuple[int, int, int]) -> Image8:
        return np.full((400, 500, 3), colour, np.uint8)

    speck = flat((244, 244, 244))
    speck[170:210, 170:210] = paint()[350:390, 350:390]
    part = paint()[320:420, 320:420]
    mirrored = np.concatenate([part, part[:, ::-1]], axis=1)
    full = np.tile(np.concatenate([mirrored, mirrored[::-1]]), (2, 3, 1))[:400, :500]
    return [
        done(51, _plain(here / "white.tif", flat((244, 244, 244))), "no tissue"),
        done(52, _plain(here / "black.tif", flat((0, 0, 0))), "unlike|no tissue|pen|dark",
             variant="black"),
        done(52, _plain(here / "pen.tif", flat((30, 60, 200))), "unlike|no tissue|pen",
             variant="pen"),
        done(53, _plain(here / "speck.tif", speck), "no tissue"),
        done(54, _plain(here / "full.tif", full)),
    ]  # fmt: skip


def _plain(path: Path, image: Image8) -> Path:
    return write_parts(path, generic(image, means(image)))
