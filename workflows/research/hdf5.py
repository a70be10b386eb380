"""Features in the HDF5 layouts of TRIDENT, CLAM and STAMP, written so that those tools read them.

============  ==================================  ==========================================
form          datasets                            attributes that its readers ask for
============  ==================================  ==========================================
``trident``   features N x D, coords N x 2 int64  of coords: patch_size, patch_size_level0,
              (level-0 px, top left corner)       level0_magnification, target_magnification,
                                                  overlap, name, level0_width, level0_height
``clam``      features N x D, coords N x 2 int32  none
              (level-0 px, top left corner)
``stamp``     feats N x D, coords N x 2 float32   of the file: unit "um", tile_size_um,
              (um, top left corner)               tile_size_px, extractor, feat_type,
                                                  stamp_version
============  ==================================  ==========================================

Sources: mahmoodlab/TRIDENT trident/IO.py, mahmoodlab/CLAM extract_features_fp.py, KatherLab/STAMP
src/stamp/preprocessing. All three files also get ``encoder`` and ``slidetriage_features``, which
those tools pass over: only STAMP's layout says which encoder made the features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError

from .feature_values import FeatureFacts, is_finite
from .zarr_features import FACTS, whole_chunks

if TYPE_CHECKING:
    import h5py

Hdf5Form = Literal["trident", "clam", "stamp"]

STAMP_VERSION = "2.1.0"
"""The first version of STAMP that reads this layout; it refuses files of versions after its own."""

CHUNK_BYTES = 2**20

FACE_POWER_UM = 10.0
"""Objective power times um per pixel: 20x is taken to be 0.5 um/px, as those tools take it."""


def write_hdf5(
    path: Path,
    form: Hdf5Form,
    facts: FeatureFacts,
    corners_px: NDArray[np.float64],
    parts: Iterable[NDArray[np.float32]],
    *,
    feature_size: int,
) -> None:
    """Write a file that is not there yet; its arrays carry checksums, and no time is in it.

    Features are stored as float32 and come back exactly. Corners are rounded to whole level-0 px
    for TRIDENT and CLAM, as their readers need it.

    Raises
    ------
    UsageError
        The form needs to know of the slide what `facts` do not say.
    """
    import h5py

    layout = _LAYOUTS[form](facts, corners_px)
    with h5py.File(path, "w-", libver=("earliest", "v110")) as file:
        # Of fixed length, so that reading them needs none of the library's heaps.
        file.attrs[FACTS] = np.bytes_(facts.to_json().encode())
        if facts.encoder:
            file.attrs["encoder"] = np.bytes_(facts.encoder.encode())
        for name, value in layout.of_file.items():
            file.attrs[name] = value
        tiles = max(1, len(corners_px))
        rows = min(tiles, max(1, CHUNK_BYTES // (4 * feature_size)))
        features = _create(file, layout.features, np.dtype(np.float32), rows, feature_size)
        features.resize(len(corners_px), axis=0)
        for start, part in whole_chunks(parts, rows):
            features[start : start + len(part)] = part
        coords = _create(file, "coords", layout.coords.dtype, min(tiles, 2**16), 2)
        coords.resize(len(corners_px), axis=0)
        coords[:] = layout.coords
        for name, value in layout.of_coords.items():
            coords.attrs[name] = value


class _Layout:
    """What one form wants to be in its file."""

    def __init__(
        self,
        features: str,
        coords: NDArray[np.float32] | NDArray[np.int64] | NDArray[np.int32],
        *,
        of_file: Mapping[str, object] | None = None,
        of_coords: Mapping[str, object] | None = None,
    ) -> None:
        self.features = features
        self.coords = coords
        self.of_file = of_file or {}
        self.of_coords = of_coords or {}


def _lay_out_trident(facts: FeatureFacts, corners_px: NDArray[np.float64]) -> _Layout:
    known = _need(facts, "trident", "tile_px", "mpp", "slide_mpp")
    tile_px, mpp = int(known["tile_px"]), known["mpp"]
    slide_mpp = known["slide_mpp"]
    power = facts.magnification or round(FACE_POWER_UM / slide_mpp, 4)
    attributes: dict[str, object] = {
        "patch_size": tile_px,
        "patch_size_level0": round(tile_px * mpp / slide_mpp),
        "level0_magnification": power,
        # So that its ratio to that of level 0 is the scale at which the tiles were read.
        "target_magnification": power * slide_mpp / mpp,
        "overlap": tile_px - (facts.stride_px or tile_px),
        "name": facts.slide or "",
        "savetodir": "",
    }
    if facts.slide_px is not None:
        attributes["level0_width"], attributes["level0_height"] = facts.slide_px
    return _Layout("features", np.rint(corners_px).astype(np.int64), of_coords=attributes)


def _lay_out_clam(facts: FeatureFacts, corners_px: NDArray[np.float64]) -> _Layout:
    del facts
    return _Layout("features", np.rint(corners_px).astype(np.int32))


def _lay_out_stamp(facts: FeatureFacts, corners_px: NDArray[np.float64]) -> _Layout:
    known = _need(facts, "stamp", "tile_px", "mpp", "slide_mpp")
    assert facts.slide_mpp is not None  # asked for in the line before
    attributes: dict[str, object] = {
        "stamp_version": STAMP_VERSION,
        "extractor": facts.encoder or "",
        "unit": "um",
        "tile_size_um": known["tile_px"] * known["mpp"],
        "tile_size_px": int(known["tile_px"]),
        "feat_type": "tile",
    }
    coords_um = (corners_px * np.array(facts.slide_mpp)).astype(np.float32)
    return _Layout("feats", coords_um, of_file=attributes)


_LAYOUTS = {"trident": _lay_out_trident, "clam": _lay_out_clam, "stamp": _lay_out_stamp}


def _need(facts: FeatureFacts, form: str, *names: str) -> dict[str, float]:
    """The facts of these names, each as one number."""
    values = {
        "tile_px": facts.tile_px,
        "mpp": facts.mpp,
        "slide_mpp": None if facts.slide_mpp is None else sum(facts.slide_mpp) / 2,
    }
    known: dict[str, float] = {}
    for name in names:
        value = values[name]
        if value is None or not is_finite(value):
            raise UsageError(
                f"The form {form!r} needs {name}, which is not known of {facts.slide or 'it'}.",
                mend="Extract the features with slidetriage, or choose the form clam.",
                code="E_FEATURES",
            )
        known[name] = value
    return known


def _create(
    file: h5py.File, name: str, dtype: np.dtype[np.generic], rows: int, columns: int
) -> h5py.Dataset:
    return file.create_dataset(
        name,
        shape=(0, columns),
        maxshape=(None, columns),
        chunks=(rows, columns),
        dtype=dtype,
        fletcher32=True,
        track_times=False,
    )
