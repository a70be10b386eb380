"""B: slides that were cut short, changed, or lost some of their files."""

from __future__ import annotations

import hashlib
import shutil
import struct
from pathlib import Path

from faults.painted import LEVEL, aperio, generic, paint
from faults.specimens import Specimen, done, failed, rejected
from faults.tiff_parts import Directory, write_parts

AGAIN = "copy it again"
COPIED = "copy the slide again|copy it again"

GROWING = "growing.svs"
"""Something is added to this one all the time while the run lasts."""


def make(here: Path) -> list[Specimen]:
    """Every specimen of section B but for the real DICOM files."""
    return [*_cut(here), *_lost_tails(here), *_hashes(here), *_mirax(here), *_growing(here)]


def _cut(here: Path) -> list[Specimen]:
    whole = write_parts(here / "whole.svs", aperio()).read_bytes()
    first = write_parts(here / "first.tif", generic(), directories_first=True).read_bytes()
    found = []
    for percent in (1, 5, 10, 25, 33, 50, 75, 90, 95, 99, 99.9):
        path = here / f"cut-{percent}.svs"
        path.write_bytes(whole[: int(len(whole) * percent / 100)])
        found.append(rejected(15, path, "E_TRUNCATED", "truncated", AGAIN, variant=f"{percent}"))
    for percent in (10, 30, 50, 70, 90, 99):
        path = here / f"first-{percent}.tif"
        path.write_bytes(first[: len(first) * percent // 100])
        found.append(rejected(17, path, "E_TRUNCATED", "truncated", AGAIN, variant=f"{percent}"))
    for name, content in (("last-directory.svs", whole), ("last-tile.tif", first)):
        path = here / name
        path.write_bytes(content.rstrip(b"\0")[:-1])
        found.append(
            rejected(16, path, "E_TRUNCATED", "truncated", AGAIN, variant=name.partition(".")[0])
        )
    return found


def _lost_tails(here: Path) -> list[Specimen]:
    """Full size but the end is zeros, as a copy into preallocated space leaves it."""
    path = here / "tail.tif"
    # The coarse level first: OpenSlide reads it when it opens, and it must be there.
    fine, coarse = generic()
    content = write_parts(path, [fine, coarse], directories_first=True).read_bytes()
    found = []
    for percent in (20, 60, 90):
        kept = len(content) * (100 - percent) // 100
        tail = here / f"tail-{percent}.tif"
        tail.write_bytes(content[:kept] + bytes(len(content) - kept))
        found.append(
            failed(
                18, tail, "E_TILE_DECODE E_TOO_MANY_GAPS", "decode|could not be read", COPIED,
                variant=f"{percent}",
            )
        )  # fmt: skip
    head = here / "head-zero.tif"
    head.write_bytes(bytes(len(content) // 5) + content[len(content) // 5 :])
    found.append(rejected(18, head, "E_NOT_SLIDE", "check that", variant="head"))
    known = here / "tail-known.tif"
    known.write_bytes(
        content[: len(content) * 8 // 10] + bytes(len(content) - len(content) * 8 // 10)
    )
    _sidecar(known, hashlib.sha256(content).hexdigest())
    found.append(rejected(18, known, "E_HASH", "sha256|hash|checksum", COPIED, variant="sidecar"))
    return found


def _sidecar(path: Path, text: str) -> None:
    path.with_name(f"{path.name}.sha256").write_text(text)


def _hashes(here: Path) -> list[Specimen]:
    wrong = hashlib.sha256(b"another file").hexdigest()
    # A tile of it is bad too: what must be said is the hash, before any tile was read.
    parts = aperio(paint())
    side = write_parts(here / "hash-sidecar.svs", [_spoilt(parts[LEVEL]), *parts[1:]])
    _sidecar(side, f"{wrong}  {side.name}\n")
    column = write_parts(here / "hash-column.svs", aperio())
    bad = write_parts(here / "hash-no-hex.svs", aperio())
    _sidecar(bad, "see the e-mail of Monday")
    empty = write_parts(here / "hash-empty.svs", aperio())
    _sidecar(empty, "")
    typo = write_parts(here / "hash-typo.svs", aperio())
    good = write_parts(here / "hash-right.svs", aperio(mpp="2.0"))
    _sidecar(good, f"{hashlib.sha256(good.read_bytes()).hexdigest().upper()}  {good.name}\n")
    cause = "sha256|hash|checksum"
    return [
        rejected(20, side, "E_HASH", cause, COPIED, variant="sidecar"),
        Specimen(
            20, column, "REJECTED", ("E_HASH",), (cause, COPIED), "column", {"sha256": wrong}
        ),
        rejected(20, bad, "E_HASH", cause, "64|hex", variant="no-hex"),
        rejected(20, empty, "E_HASH", cause, "64|hex", variant="empty"),
        Specimen(
            20, typo, "REJECTED", ("E_HASH",), (cause, "64|hex"), "no-hex-column",
            {"sha256": wrong[:-1]},
        ),
        done(20, good, variant="right"),
    ]  # fmt: skip


def _spoilt(directory: Directory) -> Directory:
    return directory.zero(*range(0, len(directory.blocks), 3))


_SLIDEDAT = """[GENERAL]
SLIDE_ID = 0
IMAGENUMBER_X = 4
IMAGENUMBER_Y = 4
CURRENT_SLIDE_VERSION = 01.02
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
MICROMETER_PER_PIXEL_X = 4.0
MICROMETER_PER_PIXEL_Y = 4.0
IMAGE_FORMAT = JPEG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = 256
DIGITIZER_HEIGHT = 256
IMAGE_CONCAT_FACTOR = 0
[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
"""


def _mirax(here: Path) -> list[Specimen]:
    alone, partly = here / "alone.mrxs", here / "partly.mrxs"
    for path in (alone, partly):
        path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    folder = here / "partly"
    folder.mkdir()
    (folder / "Slidedat.ini").write_text(_SLIDEDAT)
    (folder / "Index.dat").write_bytes(_index())
    bare = here / "bare.mrxs"
    shutil.copy(alone, bare)
    (here / "bare").mkdir()
    (here / "bare" / "Slidedat.ini").write_text(_SLIDEDAT)
    empty = here / "empty.mrxs"
    shutil.copy(alone, empty)
    (here / "empty").mkdir()
    beside = "companion|beside|copy it again"
    return [
        rejected(21, alone, "E_NOT_SLIDE", beside, variant="folder"),
        rejected(21, partly, "E_NOT_SLIDE", beside, variant="dat"),
        rejected(21, empty, "E_NOT_SLIDE", beside, variant="ini"),
        rejected(21, bare, "E_NOT_SLIDE", beside, variant="index"),
    ]


def _index() -> bytes:
    """An index that is right: one tile, whose data should lie in Data0000.dat."""
    numbers = (14, 0, 18, 0, 26, 1, 0, 0, 0, 5000, 0)
    return b"01.020" + struct.pack(f"<{len(numbers)}i", *numbers)


def _growing(here: Path) -> list[Specimen]:
    path = write_parts(here / GROWING, aperio())
    return [failed(19, path, "E_UNSTABLE", "changed", "run again")]


def make_dicom(here: Path, variants: Path) -> list[Specimen]:
    """Series that lost an instance, hold one twice, or lie two in a folder.

    Made from `variants`, real DICOM files of one slide coded in several ways.
    """
    from pydicom import dcmread

    def written(source: str, target: Path, series: str) -> Path:
        target.parent.mkdir(exist_ok=True)
        header = dcmread(variants / source)
        header.SeriesInstanceUID = series
        header.FrameOfReferenceUID = f"{series}.9"
        measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = [0.004, 0.004]
        header.save_as(target)
        return target

    # Said to be one of two parts of a whole; the other is not there.
    half = written("jpeg.dicom", here / "half" / "half.dcm", "2.25.1")
    header = dcmread(half)
    header.ConcatenationUID = "2.25.11"
    header.SOPInstanceUIDOfConcatenationSource = "2.25.12"
    header.InConcatenationNumber = 1
    header.InConcatenationTotalNumber = 2
    header.ConcatenationFrameOffsetNumber = 0
    _keep_frames(header, 6)
    header.save_as(half)
    short = written("jpeg.dicom", here / "short" / "short.dcm", "2.25.5")
    header = dcmread(short)
    _keep_frames(header, 6)
    header.save_as(short)
    twice = written("jpeg.dicom", here / "twice" / "twice.dcm", "2.25.2")
    shutil.copy(twice, twice.with_name("twice-again.dcm"))
    mixed = [
        written(source, here / "mixed" / name, series)
        for source, name, series in (
            ("jpeg.dicom", "mixed-one.dcm", "2.25.3"), ("raw.dicom", "mixed-two.dcm", "2.25.4"),
        )
    ]  # fmt: skip
    codes = "E_TRUNCATED E_NOT_SLIDE"
    return [
        rejected(22, half, codes, "missing|truncated|opens|open it", "copy|copied"),
        failed(
            22, short, "E_TILE_DECODE", "missing|truncated|opens|open it|frame",
            "copy|copied", variant="frames",
        ),
        done(23, twice),
        done(24, mixed[0], variant="one"),
        done(24, mixed[1], variant="two"),
    ]  # fmt: skip


def _keep_frames(header: object, count: int) -> None:
    from pydicom.encaps import encapsulate, generate_frames

    total = int(header.NumberOfFrames)  # type: ignore[attr-defined]
    frames = list(generate_frames(header.PixelData, number_of_frames=total))  # type: ignore[attr-defined]
    header.NumberOfFrames = count  # type: ignore[attr-defined]
    header.PixelData = encapsulate(frames[:count])  # type: ignore[attr-defined]
