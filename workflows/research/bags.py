"""Where the features of a cohort's slides come from; never of two encoders at once."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.workflows.sources import SLIDE_SUFFIXES

from .feature_files import HDF5_SUFFIXES, read_features, read_header
from .feature_values import (
    MAX_BYTES,
    MAX_FEATURE_SIZE,
    FeatureHeader,
    SlideBag,
    check_bag,
    damaged,
)

MPP_TOLERANCE = 0.01
"""Share by which um per pixel may differ and still be called the same."""

NAMES_SHOWN = 5


class BagSource(Protocol):
    """Features of slides, read when they are asked for; all are of one encoder."""

    @property
    def encoder(self) -> str:
        """Identifier of the encoder that made all of them."""
        ...

    @property
    def feature_size(self) -> int:
        """D."""
        ...

    def tiles(self, slide: str) -> int | None:
        """How many rows the slide has; None where the source does not have the slide."""
        ...

    def load(self, slide: str) -> SlideBag:
        """Features N x D and corners of one slide; raises `UsageError` where they are damaged."""
        ...


class FileBags:
    """One file or folder of features per slide; only what they say of themselves is held."""

    def __init__(self, files: Mapping[str, Path], *, encoder_name: str | None = None) -> None:
        """Look into every file.

        Raises
        ------
        UsageError
            There are none, one is damaged (E_FEATURES), none says of which encoder it is and
            neither does `encoder_name`, or they are of different ones (E_FEATURES_MIXED).
        """
        if not files:
            raise UsageError("There are no features of any slide.", code="E_FEATURES")
        self._headers = {slide: read_header(path) for slide, path in files.items()}
        headers = list(self._headers.values())
        self._encoder = find_encoder(headers, encoder_name=encoder_name)
        self._feature_size = headers[0].feature_size

    @property
    def encoder(self) -> str:
        """Identifier of the encoder that made all of them."""
        return self._encoder

    @property
    def feature_size(self) -> int:
        """D."""
        return self._feature_size

    def tiles(self, slide: str) -> int | None:
        """How many rows the slide has; None where there is no file of it."""
        header = self._headers.get(slide)
        return None if header is None else header.tiles

    def load(self, slide: str) -> SlideBag:
        """Read the slide's file."""
        bag = read_features(self._headers[slide].path)
        if bag.features.shape[1] != self._feature_size:
            raise damaged(self._headers[slide].path, "it has changed since it was looked at")
        return bag


class NpzBags:
    """Many slides in one .npz: features M x D, offsets S + 1 and slide_id S; read when needed."""

    def __init__(self, path: Path, *, encoder_name: str | None) -> None:
        """Read the table of slides; raises `UsageError` where it is damaged."""
        if encoder_name is None:
            raise _unnamed(path)
        self._path = path
        self._encoder = encoder_name
        self._features: NDArray[np.generic] | None = None
        shapes = _npz_shapes(path)
        rows, self._feature_size = shapes["features"]
        offsets = _read_npz(path, "offsets").astype(np.int64)
        slides = [str(name) for name in _read_npz(path, "slide_id")]
        if len(offsets) != len(slides) + 1 or offsets[0] != 0 or offsets[-1] != rows:
            raise damaged(path, "its offsets do not part its features among its slides")
        if (np.diff(offsets) < 0).any() or len(set(slides)) != len(slides):
            raise damaged(path, "its offsets fall, or a slide is in it twice")
        spans = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        self._spans = dict(zip(slides, spans, strict=True))

    @property
    def encoder(self) -> str:
        """What the user says made them; the file itself cannot say."""
        return self._encoder

    @property
    def feature_size(self) -> int:
        """D."""
        return self._feature_size

    def tiles(self, slide: str) -> int | None:
        """How many rows the slide has; None where the file does not have the slide."""
        span = self._spans.get(slide)
        return None if span is None else span[1] - span[0]

    def load(self, slide: str) -> SlideBag:
        """The slide's rows as float32; the file is read whole the first time, and kept."""
        if self._features is None:
            self._features = _read_npz(self._path, "features")
        start, stop = self._spans[slide]
        features = np.asarray(self._features[start:stop], np.float32)
        return check_bag(self._path, SlideBag(features))


_proofs: tuple[type[BagSource], ...] = (FileBags, NpzBags)


def open_bags(
    where: Path, slides: Iterable[str], *, encoder_name: str | None = None
) -> FileBags | NpzBags:
    """The features of `slides` in one .npz, or in a folder with a file or folder for each.

    Slides without features are no error here: `BagSource.tiles` tells of them.
    """
    if where.suffix.lower() == ".npz":
        return NpzBags(where, encoder_name=encoder_name)
    if not where.is_dir():
        raise UsageError(
            f"{where}: there are no features here.",
            mend="Give the folder that `slidetriage features` wrote, or one .npz.",
            code="E_FEATURES",
        )
    found = {slide: path for slide in slides if (path := find_features(where, slide)) is not None}
    if not found:
        raise UsageError(
            f"{where}: no slide of the table has features here.",
            mend="Features are named as the slide, with .zarr or .h5; see the column `slide`.",
            code="E_FEATURES",
        )
    return FileBags(found, encoder_name=encoder_name)


def find_features(folder: Path, slide: str) -> Path | None:
    """The features in `folder` of a slide, given by its name or its path; None without any."""
    names = dict.fromkeys((slide_name(slide), PurePath(slide).name))
    for name in names:
        for suffix in (".zarr", *HDF5_SUFFIXES):
            if (folder / f"{name}{suffix}").exists():
                return folder / f"{name}{suffix}"
        if (folder / name / "features.zarr").is_dir():
            return folder / name / "features.zarr"
    return None


def slide_name(slide: str) -> str:
    """What a slide is called: its path without folders and without the suffix of a slide.

    >>> slide_name("a/TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.svs")
    'TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF'
    """
    path = PurePath(slide)
    known = (*SLIDE_SUFFIXES, ".zarr", *HDF5_SUFFIXES)
    return path.stem if path.suffix.lower() in known else path.name


def find_encoder(headers: Iterable[FeatureHeader], *, encoder_name: str | None) -> str:
    """The one encoder that all files are of.

    Raises
    ------
    UsageError
        A file does not say and `encoder_name` does not either (E_FEATURES); files are of different
        encoders, revisions, transforms, sizes or scales (E_FEATURES_MIXED).
    """
    first: FeatureHeader | None = None
    encoder = ""
    for header in headers:
        named = header.facts.encoder or encoder_name
        if named is None:
            raise _unnamed(header.path)
        if encoder_name not in (None, named):
            raise _mixed(header.path, named, None, str(encoder_name))
        if first is None:
            first, encoder = header, named
        elif named != encoder:
            raise _mixed(header.path, named, first.path, encoder)
        elif header.feature_size != first.feature_size:
            sizes = (f"{h.feature_size} features per tile" for h in (header, first))
            raise _mixed(header.path, next(sizes), first.path, next(sizes))
        elif not _same_scale(header, first):
            scales = (f"{h.facts.tile_px} px at {h.facts.mpp:g} um/px" for h in (header, first))
            raise _mixed(header.path, next(scales), first.path, next(scales))
    return encoder


def _same_scale(one: FeatureHeader, other: FeatureHeader) -> bool:
    """Whether tiles are as large; what either file does not say is not held against it."""
    a, b = one.facts, other.facts
    if a.mpp is None or b.mpp is None or a.tile_px is None or b.tile_px is None:
        return True
    return a.tile_px == b.tile_px and abs(a.mpp - b.mpp) <= MPP_TOLERANCE * b.mpp


def _mixed(path: Path, found: str, other: Path | None, wanted: str) -> UsageError:
    where = "the command line says" if other is None else f"{other} is of"
    return UsageError(
        f"{path} is of {found}, but {where} {wanted}: features of different encoders, revisions "
        "or transforms mean different things.",
        mend="Extract the features of all slides with one encoder.",
        code="E_FEATURES_MIXED",
    )


def _unnamed(path: Path) -> UsageError:
    return UsageError(
        f"{path} does not say which encoder made its features.",
        mend="Name it with --encoder-name; the name must be the same wherever they are used.",
        code="E_FEATURES",
    )


def _read_npz(path: Path, name: str) -> NDArray[np.generic]:
    try:
        with np.load(path) as arrays:
            return np.asarray(arrays[name])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, f"its array {name!r} cannot be read ({error})") from error


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes in an .npz by their headers alone, once they are known to be plain and no bomb."""
    try:
        shapes = {}
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise damaged(path, "it would take more memory than any cohort")
            for name, dimensions in (("features", 2), ("offsets", 1), ("slide_id", 1)):
                with archive.open(f"{name}.npy") as file:
                    np.lib.format.read_magic(file)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                if len(shape) != dimensions or dtype.kind not in "fiuU" or dtype.hasobject:
                    raise damaged(path, f"{name} is {dtype} of {len(shape)} dimensions")
                shapes[name] = shape
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise damaged(path, f"it is no .npz of features, offsets and slide_id ({error})") from error
    if shapes["features"][1] > MAX_FEATURE_SIZE:
        raise damaged(path, f"it claims {shapes['features'][1]:,} features per tile")
    return shapes
