"""A: what is no slide at all, or cannot be opened."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from random import Random

from PIL import Image

from faults.painted import aperio, generic, paint
from faults.specimens import Specimen, rejected
from faults.tiff_parts import COMPRESSION, SHORT, write_parts

AGAIN = "copy it again"
CHECK = "check that it is a slide|check that the file|convert|copy it again"


def make(here: Path) -> list[Specimen]:
    """Every specimen of section A but those that may hang their reader."""
    return [*_files(here), *_irregular(here), *_images(here), *_tiffs(here), *_vendors(here)]


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _files(here: Path) -> list[Specimen]:
    noise = Random(9).randbytes(100_000)
    texts = {
        "": ("text.svs", b"not a slide\n"),
        "html": ("page.ndpi", b"<!doctype html><title>404</title>"),
        "json": ("answer.tif", b'{"error": "token expired"}\n'),
        "blank": ("blank.svs", b"\n" * 1000),
        "xml": ("answer.scn", b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'),
    }
    return [
        rejected(1, _written(here / "zero.svs", b""), "E_EMPTY", "is empty", AGAIN),
        rejected(
            1, _written(here / "zero.dcm", b""), "E_EMPTY", "is empty", AGAIN, variant="dicom"
        ),
        *(
            rejected(2, _written(here / name, text), "E_NOT_SLIDE", CHECK, variant=variant)
            for variant, (name, text) in texts.items()
        ),
        rejected(9, _written(here / "noise.svs", noise), "E_NOT_SLIDE", CHECK),
        rejected(
            9, _written(here / "noise.dcm", noise), "E_NOT_SLIDE", CHECK, variant="dicom"
        ),
        rejected(
            9, _written(here / "noise.tif", b"II*\0" + struct.pack("<I", 8) + noise),
            "E_NOT_SLIDE E_TRUNCATED", CHECK, variant="tiff",
        ),
    ]  # fmt: skip


def _irregular(here: Path) -> list[Specimen]:
    folder, pipe, door = here / "folder.svs", here / "pipe.svs", here / "door.svs"
    folder.mkdir()
    os.mkfifo(pipe)
    # A socket's path is at most 107 bytes, so it is bound from within its folder.
    with socket.socket(socket.AF_UNIX) as bound:
        handle = os.open(here, os.O_RDONLY)
        try:
            bound.bind(f"/proc/self/fd/{handle}/{door.name}")
        finally:
            os.close(handle)
    device, loop, back = here / "device.svs", here / "loop.svs", here / "back.svs"
    device.symlink_to("/dev/null")
    loop.symlink_to(back.name)
    back.symlink_to(loop.name)
    dangling = here / "dangling.svs"
    dangling.symlink_to("nowhere.svs")
    locked = write_parts(here / "locked.svs", aperio())
    locked.chmod(0)
    to_folder, to_pipe = here / "to-folder.svs", here / "to-pipe.svs"
    to_folder.symlink_to(folder.name)
    to_pipe.symlink_to(pipe.name)
    own = "slide's own file"
    return [
        Specimen(
            3, folder, "REJECTED", ("E_NOT_REGULAR",), ("is a folder", own),
            columns={"slide_id": "folder"},
        ),
        Specimen(
            3, to_folder, "REJECTED", ("E_NOT_REGULAR",), ("is a folder", own), "link",
            {"slide_id": "to-folder"},
        ),
        rejected(4, pipe, "E_NOT_REGULAR", "not a regular file", own),
        rejected(4, to_pipe, "E_NOT_REGULAR", "not a regular file", own, variant="link"),
        rejected(5, device, "E_NOT_REGULAR", "not a regular file", own, variant="device"),
        rejected(5, door, "E_NOT_REGULAR", "not a regular file", own, variant="socket"),
        rejected(6, loop, "E_NOT_FOUND", "link", "check the path|mend the link"),
        rejected(7, dangling, "E_NOT_FOUND", "no such file|link", "check the path|mend the link"),
        rejected(
            7, here / "gone" / "gone.svs", "E_NOT_FOUND", "no such file", "check the path",
            variant="folder",
        ),
        rejected(
            7, here / "zero.svs" / "under.svs", "E_NOT_FOUND", "no such file", "check the path",
            variant="under-a-file",
        ),
        rejected(8, locked, "E_PERMISSION", "may not be read", "permission"),
    ]  # fmt: skip


def make_closed(here: Path) -> list[Specimen]:
    """Case 8 once more: the slide may be read, but not what its folder holds."""
    closed = here / "closed"
    closed.mkdir()
    within = write_parts(closed / "within.svs", aperio())
    closed.chmod(0)
    return [rejected(8, within, "E_PERMISSION", "may not be read", "permission", variant="folder")]


def _images(here: Path) -> list[Specimen]:
    found = []
    for kind in ("jpeg", "png", "gif", "bmp", "webp", "tiff"):
        path = here / f"{kind}.svs"
        Image.fromarray(paint()[:200, :300]).save(path, kind)
        found.append(rejected(12, path, "E_NOT_SLIDE", CHECK, variant=kind))
    return found


def _tiffs(here: Path) -> list[Specimen]:
    heads = {
        "little": b"II*\0" + struct.pack("<I", 8),
        "big": b"MM\0*" + struct.pack(">I", 8),
        "count": b"II*\0" + struct.pack("<IH", 8, 14),
        "past-end": b"II*\0" + struct.pack("<I", 1 << 20) + bytes(1000),
        "bigtiff": b"II+\0" + struct.pack("<HHQ", 8, 0, 16),
    }
    found = [
        rejected(
            10, _written(here / f"head-{name}.svs", head), "E_TRUNCATED", "truncated", AGAIN,
            variant=name,
        )
        for name, head in heads.items()
    ]  # fmt: skip
    for name, parts, bad in (
        ("aperio", aperio(), slice(None)), ("generic", generic(), slice(None)),
        ("level", generic(), slice(1, 2)),
    ):  # fmt: skip
        for directory in parts[bad]:
            directory.set(COMPRESSION, SHORT, 200)
        path = write_parts(here / f"coded-{name}.tif", parts)
        found.append(rejected(13, path, "E_NOT_SLIDE", CHECK, variant=name))
    return found


def make_rings(here: Path) -> list[Specimen]:
    """Case 11: the last directory is followed by the first, without end.

    The directories themselves are whole, so it is no truncation.
    """
    return [
        rejected(
            11, write_parts(here / f"ring-{name}.tif", parts, loop=True), "E_NOT_SLIDE",
            CHECK, variant=name,
        )
        for name, parts in (
            ("aperio", aperio()), ("generic", generic()), ("self", generic(paint())),
        )
    ]  # fmt: skip


def _vendors(here: Path) -> list[Specimen]:
    czi = b"ZISRAWFILE".ljust(16, b"\0") + struct.pack("<qqii", 544, 512, 1, 0) + bytes(2000)
    vms = b"[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=gone.jpg\nMapFile=gone.jpg\n"
    contents = {
        "czi": ("zeiss.czi", czi),
        "isyntax": ("philips.isyntax", b'<DataObject ObjectType="DPUfsImport"/>\x04' + bytes(500)),
        "vms": ("hamamatsu.vms", vms),
        "zip": ("archive.svs", b"PK\x03\x04" + bytes(500)),
        "gzip": ("slide.tif", b"\x1f\x8b\x08\0" + bytes(500)),
        "pdf": ("report.svs", b"%PDF-1.7\n" + bytes(500)),
    }
    return [
        rejected(14, _written(here / name, content), "E_NOT_SLIDE", CHECK, variant=variant)
        for variant, (name, content) in contents.items()
    ]
