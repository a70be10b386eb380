"""Tissue maskers by name: the own one and the two of TIAToolbox."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError

Masker = Callable[[NDArray[np.uint8], NDArray[np.bool_], tuple[float, float]], NDArray[np.bool_]]
"""(rgb, valid, (mpp_x, mpp_y)) -> rows x columns, True is tissue."""


def check_masker(name: str) -> Masker:
    """The masker called `name`; raises `UsageError` that names the choices."""
    try:
        return MASKERS[name]
    except KeyError:
        raise UsageError(
            f"There is no tissue masker {name!r}.", mend=f"Choose one of: {', '.join(MASKERS)}."
        ) from None


def mask_by_stain(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_], mpp: tuple[float, float]
) -> NDArray[np.bool_]:
    """The own one (see `mask_stained`)."""
    from .stain import mask_stained  # scipy, which who only checks a name need not wait for

    return mask_stained(rgb, valid, mpp)


def mask_by_otsu(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_], mpp: tuple[float, float]
) -> NDArray[np.bool_]:
    """TIAToolbox's `OtsuTissueMasker`: darker than Otsu's threshold of the grey values."""
    return _fit(_import_toolbox().OtsuTissueMasker(), rgb) & valid


def mask_by_morphology(
    rgb: NDArray[np.uint8], valid: NDArray[np.bool_], mpp: tuple[float, float]
) -> NDArray[np.bool_]:
    """TIAToolbox's `MorphologicalMasker`: Otsu, then small pieces removed and edges grown."""
    return _fit(_import_toolbox().MorphologicalMasker(mpp=mpp), rgb) & valid


def _import_toolbox() -> ModuleType:
    # It takes seconds to import, so only who asks for it pays; what its packages warn of on
    # import (a file left open, TensorFlow absent) is nothing that a user could mend.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tiatoolbox.tools import tissuemask
    return cast(ModuleType, tissuemask)


def _fit(masker: Any, rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(masker.fit_transform(rgb[np.newaxis])[0], np.bool_)


MASKERS: Mapping[str, Masker] = MappingProxyType(
    {
        "slidetriage": mask_by_stain,
        "otsu": mask_by_otsu,
        "morphological": mask_by_morphology,
    }
)
"""Every masker by the name that users choose it by; the first is the default."""
