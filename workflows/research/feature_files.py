"""A slide's features in any form: looked into, read, and written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import OutputError, UsageError
from slidetriage.workflows.publishing import publish

from .feature_values import FeatureFacts, FeatureHeader, Form, SlideBag, check_form

SUFFIXES: dict[Form, str] = {"zarr": ".zarr", "trident": ".h5", "clam": ".h5", "stamp": ".h5"}

HDF5_SUFFIXES = (".h5", ".hdf5")


def read_header(path: Path) -> FeatureHeader:
    """What a file of features says of itself; raises `UsageError` (E_FEATURES) if damaged."""
    if path.suffix.lower() in HDF5_SUFFIXES:
        from .hdf5_reading import read_hdf5_header

        return read_hdf5_header(path)
    _check_there(path)
    from .zarr_features import read_zarr_header

    return read_zarr_header(path)


def read_features(path: Path, *, slide_mpp: tuple[float, float] | None = None) -> SlideBag:
    """The features of one slide; raises `UsageError` (E_FEATURES) for a damaged file.

    `slide_mpp`, um per level-0 px along x and y, is what STAMP's coordinates need to become px.
    """
    if path.suffix.lower() in HDF5_SUFFIXES:
        from .hdf5_reading import read_hdf5

        return read_hdf5(path, slide_mpp=slide_mpp)
    _check_there(path)
    from .zarr_features import read_zarr

    return read_zarr(path)


def write_features(
    path: Path,
    form: Form,
    facts: FeatureFacts,
    corners_px: NDArray[np.float64],
    parts: Iterable[NDArray[np.float32]],
    *,
    feature_size: int,
) -> None:
    """Write features under a temporary name beside `path`, then move them there.

    Parameters
    ----------
    path
        Of a file (HDF5) or of a folder (zarr) that is not there yet.
    corners_px
        N x 2, top left corners of the tiles in level-0 px.
    parts
        N_i x D, which make up N x D together.
    """
    check_form(form)
    temporary = path.with_name(f".{path.name}.tmp")
    remove_features(temporary)
    parts = _counted(parts, len(corners_px))
    try:
        if form == "zarr":
            from .zarr_features import write_zarr

            write_zarr(temporary, facts, corners_px, parts, feature_size=feature_size)
        else:
            from .hdf5 import write_hdf5

            write_hdf5(temporary, form, facts, corners_px, parts, feature_size=feature_size)
        publish_features(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path}: features cannot be written ({error.strerror or error}).",
            mend="Check the disk and its rights.",
        ) from error
    finally:
        remove_features(temporary)


def publish_features(staged: Path, target: Path) -> None:
    """Move finished features to where they belong by one rename, once they are on the disk."""
    if target.exists():
        raise OutputError(f"{target} is there already.", mend="Remove it, or choose another name.")
    if staged.is_file():
        with staged.open("rb") as file:
            os.fsync(file.fileno())
    publish(staged, target)


def remove_features(path: Path) -> None:
    """Remove features if there are any."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def convert_features(
    source: Path,
    target: Path,
    form: Form,
    *,
    encoder_name: str | None = None,
    slide_mpp: tuple[float, float] | None = None,
) -> FeatureHeader:
    """Write the features of one file in another form; the values stay exactly what they are.

    Raises
    ------
    UsageError
        The source is damaged, does not say where its tiles are, or not what the form needs.
    """
    header = read_header(source)
    bag = read_features(source, slide_mpp=slide_mpp)
    if bag.corners_px is None:
        raise UsageError(
            f"{source}: where its tiles are on the slide is not known.",
            mend="Give the slide's um per pixel, or extract the features again.",
            code="E_FEATURES",
        )
    facts = header.facts
    facts = replace(
        facts,
        encoder=facts.encoder or encoder_name,
        slide_mpp=slide_mpp or facts.slide_mpp,
    )
    write_features(
        target, form, facts, bag.corners_px, [bag.features], feature_size=header.feature_size
    )
    return read_header(target)


def _check_there(path: Path) -> None:
    if not path.is_dir():
        raise UsageError(
            f"{path}: there are no features here.",
            mend="Features are folders named .zarr, or HDF5 files named .h5.",
            code="E_FEATURES",
        )


def _counted(parts: Iterable[NDArray[np.float32]], rows: int) -> Iterable[NDArray[np.float32]]:
    """The same parts; raises `ValueError` where they do not make up so many rows."""
    total = 0
    for part in parts:
        total += len(part)
        yield part
    if total != rows:
        raise ValueError(f"{total} rows of features for {rows} tiles")
