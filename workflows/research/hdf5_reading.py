"""Features out of HDF5 files of TRIDENT, CLAM and STAMP, none of which is trusted.

An HDF5 file can claim arrays of any size, hold Python objects, and refer to other files. Each array
is looked at before anything is allocated for it, and whatever leads elsewhere is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import SlideTriageError, UsageError

from .feature_values import (
    FeatureFacts,
    FeatureHeader,
    Form,
    SlideBag,
    check_array,
    check_bag,
    damaged,
    is_finite,
)
from .hdf5_heaps import check_heaps
from .zarr_features import FACTS

if TYPE_CHECKING:
    import h5py

MAX_CHUNK_BYTES = 2**27
MAX_TEXT = 2**16

ENCODER_ATTRIBUTES = ("encoder", "extractor")


def read_hdf5_header(path: Path) -> FeatureHeader:
    """What the file says of itself; raises `UsageError` (E_FEATURES) for a damaged one."""
    with _open(path) as file:
        form, name = _find_form(path, file)
        features = _dataset(path, file, name)
        tiles, size = features.shape
        return FeatureHeader(path, form, tiles, size, _read_facts(path, file, form))


def read_hdf5(path: Path, *, slide_mpp: tuple[float, float] | None = None) -> SlideBag:
    """The features of one slide as float32, and its tiles' corners in level-0 px.

    Parameters
    ----------
    slide_mpp
        Micrometres per level-0 px along x and y. STAMP's coordinates are micrometres, and its
        files do not say this; without it they have no corners.

    Raises
    ------
    UsageError
        The file is damaged, or hostile (E_FEATURES).
    """
    with _open(path) as file:
        form, name = _find_form(path, file)
        features = np.asarray(_dataset(path, file, name)[:], np.float32)
        facts = _read_facts(path, file, form)
        corners = None
        if "coords" in file:
            found = np.asarray(_dataset(path, file, "coords")[:], np.float64)
            corners = _to_corners(path, found, file, form, slide_mpp or facts.slide_mpp)
    return check_bag(path, SlideBag(features, corners))


def _to_corners(
    path: Path,
    coords: NDArray[np.float64],
    file: h5py.File,
    form: Form,
    slide_mpp: tuple[float, float] | None,
) -> NDArray[np.float64] | None:
    """Coordinates as they are stored -> level-0 px, where that can be known."""
    if form != "stamp":
        return coords
    unit = _text(path, file.attrs, "unit")
    if unit == "px":
        return coords
    # Files of STAMP before version 2 state no unit; theirs is 256 um / 224.
    if unit == "um" and slide_mpp is not None:
        return np.asarray(coords / np.array(slide_mpp))
    return None


def _find_form(path: Path, file: h5py.File) -> tuple[Form, str]:
    if "feats" in file:
        return "stamp", "feats"
    if "features" not in file:
        names = ", ".join(sorted(map(str, file))[:5]) or "nothing"
        raise damaged(path, f"it holds neither 'features' nor 'feats', but {names}")
    if "coords" in file and "patch_size" in _dataset(path, file, "coords").attrs:
        return "trident", "features"
    return "clam", "features"


def _read_facts(path: Path, file: h5py.File, form: Form) -> FeatureFacts:
    text = _text(path, file.attrs, FACTS)
    if text is not None:
        return FeatureFacts.from_json(text, where=path)
    encoder = None
    for holder in (file, file["feats" if form == "stamp" else "features"]):
        for name in ENCODER_ATTRIBUTES:
            encoder = encoder or _text(path, holder.attrs, name)
    facts = FeatureFacts(encoder=encoder or None)
    if form == "stamp":
        tile_px = _number(path, file.attrs, "tile_size_px")
        tile_um = _number(path, file.attrs, "tile_size_um")
        mpp = tile_um / tile_px if tile_px and tile_um else None
        return replace(facts, tile_px=int(tile_px) if tile_px else None, mpp=mpp)
    if form == "trident":
        attrs = file["coords"].attrs
        tile_px = _number(path, attrs, "patch_size")
        overlap = _number(path, attrs, "overlap")
        return replace(
            facts,
            tile_px=int(tile_px) if tile_px else None,
            stride_px=int(tile_px - (overlap or 0)) if tile_px else None,
            slide=_text(path, attrs, "name") or None,
            magnification=_number(path, attrs, "level0_magnification"),
        )
    return facts


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    import h5py

    if not path.is_file():
        raise UsageError(f"{path}: there is no such file.", code="E_FEATURES")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except SlideTriageError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"it is no HDF5 file that can be read ({error})") from error


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """An array of the file that lies in the file, of plain numbers, of a size it can have."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise damaged(path, f"{name!r} is a link to somewhere else, which is not followed")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise damaged(path, f"{name!r} is no array")
    if found.is_virtual or found.external:
        raise damaged(path, f"{name!r} lies in other files, which are not opened")
    if found.shape is None:
        raise damaged(path, f"{name!r} is empty")
    check_array(path, name, found.shape, found.dtype, stored=found.id.get_storage_size())
    if found.chunks is not None and prod(found.chunks) * found.dtype.itemsize > MAX_CHUNK_BYTES:
        raise damaged(path, f"{name!r} has chunks of {found.chunks} values")
    return found


def _text(path: Path, attrs: h5py.AttributeManager, name: str) -> str | None:
    value = _scalar(path, attrs, name)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _number(path: Path, attrs: h5py.AttributeManager, name: str) -> float | None:
    """A number above zero; None where it is anything else."""
    value = _scalar(path, attrs, name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if is_finite(number) else None


def _scalar(path: Path, attrs: h5py.AttributeManager, name: str) -> Any:
    """One number or text; None where there is none. Anything larger is not read."""
    import h5py

    if name not in attrs:
        return None
    kind = attrs.get_id(name)
    text = h5py.check_string_dtype(kind.dtype)
    if kind.shape not in ((), (1,)) or kind.dtype.itemsize > MAX_TEXT:
        return None
    if text is None and kind.dtype.kind not in "fiu":
        return None
    if text is not None and text.length is None:
        check_heaps(path)
    value = attrs[name]
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0]
    if isinstance(value, str | bytes) and len(value) > MAX_TEXT:
        raise damaged(path, f"its attribute {name!r} is {len(value):,} characters long")
    return value
