"""Small sound slides of many formats, to be spoilt by a fuzzer."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from faults.painted import COARSE, LEVEL, MPP, aperio, generic, means, paint
from faults.tiff_parts import (
    BITS,
    COMPRESSION,
    HEIGHT,
    LONG,
    PHOTOMETRIC,
    RATIONAL,
    RESOLUTION_UNIT,
    ROWS_PER_STRIP,
    SAMPLES,
    SHORT,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    WIDTH,
    X_RESOLUTION,
    Y_RESOLUTION,
    Encode,
    Image8,
    as_jpeg,
    as_jpeg2000,
    write_parts,
)
from tiny_slides import write_tiff

WIDTH_PX, HEIGHT_PX = 448, 320

SLONG, FLOAT = 9, 11
NDPI_FORMAT, NDPI_LENS = 65420, 65421
NDPI_PLACES = (65422, 65423, 65424)
"""Of the middle and the focal plane, in nanometres."""

YCBCR_J2K = 33003
"""Aperio's compression tag for JPEG 2000 of YCbCr."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One sound slide as the bytes of its files."""

    name: str
    files: dict[str, bytes]
    """By their paths; the first is the slide's own file."""
    stated_mpp: bool
    """Whether its scale must be stated, because the file cannot say."""


@cache
def image() -> Image8:
    """Painted tissue, cut so small that little is read of each mutant."""
    return np.ascontiguousarray(paint()[200 : 200 + HEIGHT_PX, 300 : 300 + WIDTH_PX])


def make_seeds(folder: Path) -> list[Seed]:
    """Every seed; the files are written in `folder` on the way."""
    makers: dict[str, Callable[[Path], Path]] = {
        "svs-jpeg.svs": lambda path: _aperio(path, as_jpeg),
        "svs-j2k.svs": lambda path: _aperio(path, as_jpeg2000),
        "svs-j2k-ycc.svs": lambda path: _aperio(path, as_jpeg2000, compression=YCBCR_J2K),
        "jpeg.tif": lambda path: write_parts(
            path, generic(image(), means(image())), directories_first=True
        ),
        "lzw.tif": lambda path: _plain(path, "lzw"),
        "deflate.tif": lambda path: _plain(path, "deflate"),
        "raw.tif": lambda path: _plain(path, None),
        "ome.ome.tif": _ome,
        "big.btf": _big,
        "slide.ndpi": _hamamatsu,
        "plain.png": lambda path: _image(path, "PNG"),
        "plain.jpg": lambda path: _image(path, "JPEG"),
        "plain.tif": lambda path: _image(path, "TIFF"),
    }  # fmt: skip
    seeds = []
    for name, make in makers.items():
        content = make(folder / name).read_bytes()
        seeds.append(Seed(name, {name: content}, stated_mpp=name.startswith("plain.")))
    return [*seeds, _dicom(), _mirax()]


def _aperio(path: Path, encode: Encode, *, compression: int | None = None) -> Path:
    parts = aperio(image(), encode=encode)
    if compression is not None:
        for number in (LEVEL, COARSE):
            parts[number].set(COMPRESSION, SHORT, compression)
    return write_parts(path, parts)


def _plain(path: Path, compression: str | None) -> Path:
    return write_tiff(path, image(), mpp=MPP, levels=2, tile=64, compression=compression)


def _ome(path: Path) -> Path:
    scale = {"PhysicalSizeX": MPP, "PhysicalSizeY": MPP}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(
            image(), tile=(64, 64), photometric="rgb", compression="deflate", subifds=1,
            metadata={"axes": "YXS", "Name": "mini", **scale},
        )  # fmt: skip
        tiff.write(
            means(image(), 2), tile=(64, 64), photometric="rgb", compression="deflate",
            subfiletype=1,
        )  # fmt: skip
    return path


def _big(path: Path) -> Path:
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(
            image(), tile=(64, 64), photometric="rgb", compression="lzw", predictor=True,
            metadata=None, resolution=(1e4 / MPP, 1e4 / MPP), resolutionunit="CENTIMETER",
        )  # fmt: skip
    return path


def _hamamatsu(path: Path) -> Path:
    """Two levels, each one strip of restart intervals, in the TIFF with 64-bit places of NDPI."""
    # Values that do not fit into a tag stand behind the header, for all directories.
    beside = struct.pack("<3H2x", 8, 8, 8)
    beside += b"".join(struct.pack("<2I", round(1e7 / mpp), 1000) for mpp in (MPP, 4 * MPP))
    header, data, places = 16 + len(beside), b"", []
    strips = []
    for pixels in (image(), means(image())):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(
            buffer, "JPEG", quality=80, subsampling="4:2:2", restart_marker_blocks=7
        )
        strips.append((header + len(data), buffer.getvalue(), pixels, 20 if not strips else 5))
        data += buffer.getvalue() + b"\0" * (len(buffer.getvalue()) % 2)
    directories, at = b"", header + len(data)
    for place, strip, pixels, lens in strips:
        entries = _ndpi_entries(place, len(strip), pixels, lens)
        places.append(at + len(directories))
        last = len(places) == len(strips)
        size = 2 + len(entries) * 16 + 8
        directories += struct.pack("<H", len(entries)) + b"".join(entries)
        directories += struct.pack("<Q", 0 if last else places[-1] + size)
        directories += bytes(4 * len(entries))
    start = struct.pack("<2sHQ4x", b"II", 42, places[0])
    path.write_bytes(start + beside + data + directories)
    return path


def _ndpi_entries(place: int, length: int, pixels: Image8, lens: int) -> list[bytes]:
    height, width = pixels.shape[:2]
    numbers = {
        WIDTH: width, HEIGHT: height, COMPRESSION: 7, PHOTOMETRIC: 6, STRIP_OFFSETS: place,
        SAMPLES: 3, ROWS_PER_STRIP: height, STRIP_COUNTS: length, RESOLUTION_UNIT: 3,
        NDPI_FORMAT: 1,
    }  # fmt: skip
    entries = {tag: struct.pack("<HHII", tag, LONG, 1, value) for tag, value in numbers.items()}
    entries[BITS] = struct.pack("<HHII", BITS, SHORT, 3, 16)
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        entries[tag] = struct.pack("<HHII", tag, RATIONAL, 1, 24 if width == WIDTH_PX else 32)
    entries[NDPI_LENS] = struct.pack("<HHIf", NDPI_LENS, FLOAT, 1, float(lens))
    for tag in NDPI_PLACES:
        entries[tag] = struct.pack("<HHIi", tag, SLONG, 1, 0)
    return [entries[tag] for tag in sorted(entries)]


def _image(path: Path, kind: str) -> Path:
    Image.fromarray(image()).save(path, kind)
    return path


def _dicom() -> Seed:
    """One instance of JPEG frames, as a slide scanner writes them."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, JPEGBaseline8Bit

    side = 64
    frames = [
        as_jpeg(np.ascontiguousarray(image()[top : top + side, left : left + side]))
        for top in range(0, HEIGHT_PX, side)
        for left in range(0, WIDTH_PX, side)
    ]
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    found.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.77.1.6")
    found.file_meta.MediaStorageSOPInstanceUID = UID("2.25.7.1")
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID
    found.StudyInstanceUID, found.SeriesInstanceUID = "2.25.7.2", "2.25.7.3"
    found.FrameOfReferenceUID = "2.25.7.4"
    found.Modality, found.PatientID, found.PatientName = "SM", "none", "None^None"
    found.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    found.DimensionOrganizationType = "TILED_FULL"
    found.Rows = found.Columns = side
    found.TotalPixelMatrixColumns, found.TotalPixelMatrixRows = WIDTH_PX, HEIGHT_PX
    found.TotalPixelMatrixFocalPlanes = found.NumberOfOpticalPaths = 1
    found.NumberOfFrames = len(frames)
    found.ImagedVolumeWidth, found.ImagedVolumeHeight = WIDTH_PX * MPP / 1e3, HEIGHT_PX * MPP / 1e3
    found.SamplesPerPixel, found.PhotometricInterpretation = 3, "YBR_FULL_422"
    found.PlanarConfiguration, found.PixelRepresentation = 0, 0
    found.BitsAllocated, found.BitsStored, found.HighBit = 8, 8, 7
    found.LossyImageCompression = "01"
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [MPP / 1e3, MPP / 1e3], 0.001
    groups.PixelMeasuresSequence = [measures]
    found.SharedFunctionalGroupsSequence = [groups]
    found.PixelData = encapsulate(frames)
    found["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True, little_endian=True, implicit_vr=False)
    return Seed("slide.dcm", {"slide.dcm": buffer.getvalue()}, stated_mpp=False)


_SLIDEDAT = """[GENERAL]
SLIDE_ID = 0
IMAGENUMBER_X = {columns}
IMAGENUMBER_Y = {rows}
CURRENT_SLIDE_VERSION = 01.02
OBJECTIVE_MAGNIFICATION = 20
[HIERARCHICAL]
HIER_COUNT = 1
NONHIER_COUNT = 0
INDEXFILE = Index.dat
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = 1
HIER_0_VAL_0 = ZoomLevel_0
HIER_0_VAL_0_SECTION = LAYER_0_LEVEL_0_SECTION
[LAYER_0_LEVEL_0_SECTION]
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = {mpp}
MICROMETER_PER_PIXEL_Y = {mpp}
IMAGE_FORMAT = JPEG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {side}
DIGITIZER_HEIGHT = {side}
IMAGE_CONCAT_FACTOR = 0
[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
"""


def _mirax() -> Seed:
    """One zoom level in one data file, with the index that says where its tiles lie."""
    side, root = 64, 14
    columns, rows = WIDTH_PX // side, HEIGHT_PX // side
    data, entries = b"01.020" + bytes(58), b""
    for number in range(columns * rows):
        top, left = number // columns * side, number % columns * side
        tile = as_jpeg(np.ascontiguousarray(image()[top : top + side, left : left + side]))
        entries += struct.pack("<4i", number, len(data), len(tile), 0)
        data += tile
    page = struct.pack("<5i", root + 4, 0, root + 12, columns * rows, 0) + entries
    index = b"01.020" + struct.pack("<2i", root, 0) + page
    said = _SLIDEDAT.format(columns=columns, rows=rows, mpp=MPP, side=side).encode()
    files = {
        "slide.mrxs": as_jpeg(means(image())),
        "slide/Slidedat.ini": said,
        "slide/Index.dat": index,
        "slide/Data0000.dat": data,
    }
    return Seed("slide.mrxs", files, stated_mpp=False)
