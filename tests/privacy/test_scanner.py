"""The scanner finds what it is there for: every encoding, in every packing, and pictures."""

from __future__ import annotations

import bz2
import gzip
import io
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from privacy.canaries import PLACES, make_pattern, make_tokens
from privacy.scanner import FOUND_ABOVE, Scanner, encodings, likeness, pictures

TOKENS = make_tokens(1)
ENCODINGS = sorted(encodings("x"))


def _gz(content: bytes, path: Path) -> None:
    path.write_bytes(gzip.compress(content))


def _bz2(content: bytes, path: Path) -> None:
    path.write_bytes(bz2.compress(content))


def _zlib(content: bytes, path: Path) -> None:
    path.write_bytes(zlib.compress(content))


def _zip(content: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.gz", gzip.compress(content))


def _tar(content: bytes, path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("inner")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _sqlite(content: bytes, path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("create table t (x blob)")
        base.execute("insert into t values (?)", (content,))
    base.close()


def _png_text(content: bytes, path: Path) -> None:
    info = PngInfo()
    info.add_text("Comment", content.decode("latin-1"), zip=True)
    Image.new("L", (4, 4)).save(path, "png", pnginfo=info)


def _png_pixels(content: bytes, path: Path) -> None:
    pixels = np.frombuffer(content, np.uint8)[None]
    Image.fromarray(pixels).save(path, "png")


def _zarr(content: bytes, path: Path) -> None:
    values = np.frombuffer(content + bytes(-len(content) % 4), np.float32)
    zarr.create_array(store=path, data=values, chunks=(64,))


def _zarr_attributes(content: bytes, path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    group.attrs["note"] = content.decode("latin-1")


PACKINGS: dict[str, Callable[[bytes, Path], None]] = {
    "plain": lambda content, path: path.write_bytes(content) and None,
    "gz": _gz, "bz2": _bz2, "zlib": _zlib, "zip": _zip, "tar": _tar, "sqlite": _sqlite,
    "PNG text": _png_text, "PNG pixels": _png_pixels, "zarr": _zarr,
}  # fmt: skip


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_encoding_is_found_in_every_packing(packing: str, tmp_path: Path) -> None:
    scanner = Scanner(TOKENS)
    places = ("aperio Title", "MRN", "dicom PatientName")
    for number, encoding in enumerate(ENCODINGS):
        place = places[number % 3]
        leak = b"before" * 7 + encodings(TOKENS[place])[encoding][-1] + b"after" * 5
        folder = tmp_path / str(number)
        folder.mkdir()
        PACKINGS[packing](leak, folder / "x.bin")
        hits = scanner.search_tree(folder)
        assert (place, encoding) in {(hit.place, hit.encoding) for hit in hits}
        assert {hit.place for hit in hits} == {place}


def test_names_of_files_and_attributes_are_searched(tmp_path: Path) -> None:
    (tmp_path / f"x-{TOKENS['MRN']}.txt").touch()
    _zarr_attributes(TOKENS["aperio User"].encode(), tmp_path / "y.zarr")
    hits = Scanner(TOKENS).search_tree(tmp_path)
    assert {hit.place for hit in hits} == {"MRN", "aperio User"}


@pytest.mark.parametrize("phase", range(3))
def test_base64_is_found_whatever_stands_before(phase: int) -> None:
    import base64

    text = b"x" * (30 + phase) + TOKENS["MRN"].encode() + b"y" * 9
    hits = Scanner(TOKENS).search(base64.b64encode(text), "text")
    assert [(hit.place, hit.encoding) for hit in hits] == [("MRN", f"base64 phase {phase}")]


def test_the_parts_of_a_name_are_found_in_any_order() -> None:
    family, _, given = TOKENS["dicom PatientName"].partition("^")
    for text in (f"{given} {family}", f"{family}, {given}", f"{given}^{family}".lower()):
        hits = Scanner(TOKENS).search(text.encode(), "text")
        assert {hit.place for hit in hits} == {"dicom PatientName"}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    (tmp_path / "noise").write_bytes(rng.bytes(2_000_000))
    (tmp_path / "other").write_text(str(make_tokens(2)))
    assert Scanner(TOKENS).search_tree(tmp_path) == []
    assert len(PLACES) == len(TOKENS) == 40


@pytest.mark.parametrize(("side", "turns"), [(40, 0), (97, 1), (240, 2), (333, 3)])
def test_a_picture_of_the_label_is_found(side: int, turns: int, tmp_path: Path) -> None:
    pattern = make_pattern(3)
    rng = np.random.default_rng(4)
    page = cv2.GaussianBlur(rng.integers(0, 255, (700, 900, 3)).astype(np.uint8), (0, 0), 5)
    shown = np.rot90(cv2.resize(pattern, (side, side), interpolation=cv2.INTER_AREA), turns)
    Image.fromarray(page).save(tmp_path / "without.png")
    page[50 : 50 + side, 300 : 300 + side] = shown // 2 + 90
    Image.fromarray(page).save(tmp_path / "with.png")
    found = {name: likeness(picture, pattern) for name, picture in pictures(tmp_path)}
    assert found["without.png"] < FOUND_ABOVE < found["with.png"]
