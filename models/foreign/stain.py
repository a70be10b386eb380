"""Stain normalisation by TIAToolbox's methods, with what was fitted kept as plain numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.card import StainCard
from slidetriage.models.encoder import check_images

from .toolbox import import_toolbox

GLASS_DENSITY = 0.15 * math.log(10)
"""Optical density, base e, below which a pixel is glass (Macenko et al. 2009: 0.15, base 10)."""

_MIN_STAINED = 0.01
"""A tile with a smaller fraction of stained pixels is glass: its stains cannot be estimated."""

Method = Literal["macenko", "vahadane", "reinhard"]

_QUIET = logging.getLogger("slidetriage.tiatoolbox")
_QUIET.setLevel(logging.ERROR)


class StainNormaliser(Protocol):
    """Gives tiles the colours of the tile it was fitted to."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """N x H x W x 3 uint8 -> the same shape, each tile on its own; glass stays as it is."""

    def to_json(self) -> dict[str, object]:
        """What was fitted, as plain numbers; `read_normaliser` is the inverse."""


@dataclass(frozen=True, slots=True)
class MatrixNormaliser:
    """Two stains and how dense each is, by Macenko et al. 2009 or Vahadane et al. 2016.

    TIAToolbox calls its Vahadane unstable since scikit-learn 0.23 changed what it builds on: it
    can find stains with negative densities. Prefer Macenko.
    """

    method: Literal["macenko", "vahadane"]
    stain_matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Haematoxylin and eosin: optical densities of red, green and blue, of length 1."""
    max_concentrations: tuple[float, float]
    """Of each stain, the 99th percentile."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """N x H x W x 3 uint8 -> the same shape, each tile on its own; glass stays as it is."""
        normaliser = _make(self.method)
        normaliser.stain_matrix_target = np.array(self.stain_matrix)
        normaliser.maxC_target = np.array([self.max_concentrations])
        return _apply(normaliser, images)

    def to_json(self) -> dict[str, object]:
        """What was fitted, as plain numbers."""
        return {
            "method": self.method,
            "stain_matrix": [list(row) for row in self.stain_matrix],
            "max_concentrations": list(self.max_concentrations),
        }


@dataclass(frozen=True, slots=True)
class ReinhardNormaliser:
    """Mean and spread of lightness and the two colour axes, by Reinhard et al. 2001."""

    means: tuple[float, float, float]
    stds: tuple[float, float, float]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """N x H x W x 3 uint8 -> the same shape, each tile on its own; glass stays as it is."""
        normaliser = _make("reinhard")
        normaliser.target_means, normaliser.target_stds = self.means, self.stds
        return _apply(normaliser, images)

    def to_json(self) -> dict[str, object]:
        """What was fitted, as plain numbers."""
        return {"method": "reinhard", "means": list(self.means), "stds": list(self.stds)}


def fit_normaliser(method: Method, target: NDArray[np.uint8]) -> StainNormaliser:
    """Learn the colours of one H x W x 3 uint8 tile.

    Raises `UsageError` for another method or array, and where the tile is mostly glass.
    """
    if method not in ("macenko", "vahadane", "reinhard"):
        raise UsageError(
            f"There is no stain normaliser {method!r}.",
            mend="Choose one of: macenko, vahadane, reinhard.",
        )
    check_images(target[None] if isinstance(target, np.ndarray) else target)
    if is_glass(target):
        raise UsageError(
            "The target is glass: no stain can be learned from it.",
            mend="Choose a tile that is full of well stained tissue.",
        )
    normaliser = _make(method)
    normaliser.fit(target.copy())  # TIAToolbox writes into what it is given
    if method == "reinhard":
        means, stds = _plain(normaliser.target_means), _plain(normaliser.target_stds)
        state: dict[str, object] = {"method": method, "means": means, "stds": stds}
    else:
        state = {
            "method": method,
            "stain_matrix": [_plain(row) for row in normaliser.stain_matrix_target],
            "max_concentrations": _plain(normaliser.maxC_target.ravel()),
        }
    return read_normaliser(state)


def read_normaliser(state: Mapping[str, object]) -> StainNormaliser:
    """The normaliser that `to_json` wrote down; raises `ModelError` for anything else."""
    wanted = {
        "macenko": ("stain_matrix", "max_concentrations"),
        "vahadane": ("stain_matrix", "max_concentrations"),
        "reinhard": ("means", "stds"),
    }
    method = state.get("method")
    if not isinstance(method, str) or method not in wanted:
        raise _wrong(f"method {method!r}")
    if set(state) != {"method", *wanted[method]}:
        raise _wrong(f"fields {sorted(state)} for {method}")
    if method == "reinhard":
        means, stds = _read(state["means"], 3, "means"), _read(state["stds"], 3, "stds")
        if min(stds) <= 0:
            raise _wrong(f"stds {stds}")
        return ReinhardNormaliser(cast(Any, means), cast(Any, stds))
    rows = state["stain_matrix"]
    if not isinstance(rows, list) or len(rows) != 2:
        raise _wrong("stain_matrix, which has two rows")
    matrix = tuple(_read(row, 3, "stain_matrix") for row in rows)
    dense = _read(state["max_concentrations"], 2, "max_concentrations")
    if min(dense) <= 0 or np.linalg.matrix_rank(np.array(matrix), tol=1e-4) < 2:
        raise _wrong("stain_matrix or max_concentrations: two stains are needed")
    return MatrixNormaliser(cast(Any, method), cast(Any, matrix), cast(Any, dense))


def stain_card(normaliser: StainNormaliser) -> StainCard:
    """What was fitted, as a bundle's card holds it."""
    state = normaliser.to_json()
    method = cast(Any, state.pop("method"))
    numbers = np.concatenate([np.ravel(cast(Any, values)) for values in state.values()])
    return StainCard(method, tuple(numbers.tolist()))


def normaliser_of(card: StainCard) -> StainNormaliser:
    """The normaliser of a bundle's card; raises `ModelError` for impossible numbers."""
    numbers = list(card.numbers)
    if card.method == "reinhard":
        state: dict[str, object] = {"means": numbers[:3], "stds": numbers[3:]}
    else:
        matrix = [numbers[:3], numbers[3:6]]
        state = {"stain_matrix": matrix, "max_concentrations": numbers[6:]}
    return read_normaliser({"method": card.method, **state})


def is_glass(image: NDArray[np.uint8]) -> bool:
    """Whether less than 1 % of an H x W x 3 tile is stained."""
    darkest = image.min(axis=2)  # H x W
    stained = darkest < 255 * math.exp(-GLASS_DENSITY)
    return bool(stained.mean() < _MIN_STAINED)


def _apply(normaliser: Any, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    check_images(images)
    found = images.copy()
    for index, image in enumerate(images):
        if is_glass(image) or (image == image[0, 0]).all():
            continue
        try:
            with np.errstate(divide="raise", invalid="raise"):
                changed = np.asarray(normaliser.transform(image.copy()))
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            continue  # nothing dark, or no variety: no stains can be told apart
        if changed.shape == image.shape and changed.dtype == np.uint8:
            found[index] = changed
    return found


def _make(method: Method) -> Any:
    # Of Vahadane's method it warns each time one is made; MatrixNormaliser says it once.
    import_toolbox("tools.stainextract").logger = _QUIET
    return import_toolbox("tools.stainnorm").get_normalizer(method)


def _plain(values: Any) -> list[float]:
    return [float(value) for value in values]


def _read(values: object, count: int, name: str) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        raise _wrong(f"{name}, which has {count} numbers")
    for value in values:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise _wrong(f"{name}: {value!r}")
    return tuple(map(float, values))


def _wrong(what: str) -> ModelError:
    return ModelError(
        f"This is no fitted stain normaliser: impossible {what}.",
        mend="Fit it again with fit_normaliser.",
    )
