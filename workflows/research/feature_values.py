"""What a file of features holds, as values, and the bounds within which one is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from slidetriage.errors import UsageError

T = TypeVar("T")

Form = Literal["zarr", "trident", "clam", "stamp"]
"""Our own zarr group, or one of the HDF5 layouts that other tools read and write."""

MAX_TILES = 10_000_000
MAX_FEATURE_SIZE = 65_536
MAX_BYTES = 64 * 2**30

MOST_SQUEEZED = 200
"""How much smaller than its array a file may be; features of real tiles hardly shrink at all."""

UNSQUEEZED_BYTES = 2**20
"""Arrays this small are believed however small their file is."""


@dataclass(frozen=True, slots=True)
class FeatureFacts:
    """What a file of features says of itself; None where it does not say."""

    encoder: str | None = None
    """Identifier of the encoder: architecture, weights, transform."""
    tile_px: int | None = None
    """Side of a tile in pixels as the encoder was given it."""
    mpp: float | None = None
    """Micrometres per pixel of a tile."""
    stride_px: int | None = None
    """Distance of neighbouring tiles in tile pixels."""
    slide: str | None = None
    slide_mpp: tuple[float, float] | None = None
    """Micrometres per level-0 px along x and y."""
    slide_px: tuple[int, int] | None = None
    """Width and height of level 0."""
    magnification: float | None = None
    """Objective power of level 0."""
    unreadable: int = 0
    """Tissue tiles that could not be read; they have no row."""
    key: str | None = None
    """Everything the file depends on, hashed; only files that slidetriage made have one."""
    runtimes: tuple[str, ...] = ()
    """What computed the features, such as "openvino float32"."""

    def to_json(self) -> str:
        """One line that `from_json` reads."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_json(cls, text: str, *, where: Path) -> FeatureFacts:
        """Read what `to_json` wrote; raises `UsageError` (E_FEATURES) for anything else."""
        try:
            record = orjson.loads(text)
            return cls(
                encoder=_maybe(str, record["encoder"]),
                tile_px=_maybe(int, record["tile_px"]),
                mpp=_maybe(float, record["mpp"]),
                stride_px=_maybe(int, record["stride_px"]),
                slide=_maybe(str, record["slide"]),
                slide_mpp=_pair(float, record["slide_mpp"]),
                slide_px=_pair(int, record["slide_px"]),
                magnification=_maybe(float, record["magnification"]),
                unreadable=int(record["unreadable"]),
                key=_maybe(str, record["key"]),
                runtimes=tuple(map(str, record["runtimes"])),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(where, f"what it says of itself cannot be read ({error!r})") from error


@dataclass(frozen=True, slots=True)
class FeatureHeader:
    """What is known of a file of features before its arrays are read."""

    path: Path
    form: Form
    tiles: int
    feature_size: int
    facts: FeatureFacts


@dataclass(frozen=True, slots=True, eq=False)
class SlideBag:
    """The features of one slide, and where its tiles are."""

    features: NDArray[np.float32]
    """N x D, one row for each tile that was read."""
    corners_px: NDArray[np.float64] | None = None
    """N x 2, top left corner x, y of each tile in level-0 px; None where the file cannot tell."""

    def __len__(self) -> int:
        return len(self.features)


def check_form(form: str) -> None:
    """Raise `UsageError` where there is no such form."""
    if form not in get_args(Form):
        raise UsageError(
            f"There is no form of features {form!r}.", mend=f"Choose {', '.join(get_args(Form))}."
        )


def check_array(
    where: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], *, stored: int
) -> None:
    """Raise `UsageError` unless an array is N x D numbers of a size that its file can hold.

    Nothing is allocated for it. `stored` is how many bytes of the file belong to the array.
    """
    if dtype.fields is not None or dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise damaged(where, f"{name} holds {dtype}, not plain numbers")
    if len(shape) != 2:
        raise damaged(where, f"{name} has {len(shape)} dimensions, not tiles x values")
    size = prod(shape) * dtype.itemsize
    if shape[0] > MAX_TILES or shape[1] > MAX_FEATURE_SIZE or size > MAX_BYTES:
        raise damaged(
            where, f"{name} claims {shape[0]:,} x {shape[1]:,} values, more than any slide has"
        )
    if size > UNSQUEEZED_BYTES and size > stored * MOST_SQUEEZED:
        raise damaged(where, f"{name} claims {size:,} bytes, but {stored:,} are in the file")


def check_bag(where: Path, bag: SlideBag) -> SlideBag:
    """Raise `UsageError` where features are not finite, or coordinates do not belong to them."""
    if not np.isfinite(bag.features).all():
        row = int(np.flatnonzero(~np.isfinite(bag.features).all(axis=1))[0])
        raise damaged(where, f"the features of tile {row} are not finite")
    corners = bag.corners_px
    if corners is not None:
        if corners.shape != (len(bag.features), 2):
            raise damaged(
                where, f"it has {len(bag.features)} features and coordinates of {corners.shape}"
            )
        if not np.isfinite(corners).all():
            raise damaged(where, "its coordinates are not finite")
    return bag


def damaged(where: Path, what: str) -> UsageError:
    """The error for a file that is not what it should be (E_FEATURES)."""
    return UsageError(
        f"{where}: {what.rstrip('.')}.",
        mend="Copy the file again, or extract the slide's features again.",
        code="E_FEATURES",
    )


def _maybe(kind: Callable[[Any], T], value: object) -> T | None:
    return None if value is None else kind(value)


def _pair(kind: Callable[[Any], T], value: object) -> tuple[T, T] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{value!r} is no pair")
    return kind(value[0]), kind(value[1])


def is_finite(value: float | None) -> bool:
    """Whether a number is there, finite and above zero."""
    return value is not None and isfinite(value) and value > 0
