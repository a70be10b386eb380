"""The labelled tiles, and which patients train, validate and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class LabelledTiles:
    """Tiles with the pathologist's label and the patient they come from."""

    images: NDArray[np.uint8]
    """N x 50 x 50 x 3, RGB at 4 um/px."""
    labels: NDArray[np.float64]
    """N; 1 is invasive ductal carcinoma, 0 is not; between the two where softened."""
    patients: NDArray[np.int64]
    """N; patient numbers."""

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, patients: NDArray[np.int64]) -> LabelledTiles:
        """The tiles of these patients only, in the same order."""
        keep = np.isin(self.patients, patients)
        return LabelledTiles(self.images[keep], self.labels[keep], self.patients[keep])


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Patients, sorted within each part; no patient is in two parts."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def load_tiles(path: Path) -> LabelledTiles:
    """Read `idc_tiles.npz` (arrays `image`, `label`, `patient`)."""
    with np.load(path, allow_pickle=False) as arrays:
        return LabelledTiles(
            arrays["image"], arrays["label"].astype(np.float64), arrays["patient"].astype(np.int64)
        )


def split_patients(
    patients: NDArray[np.int64],
    *,
    seed: int,
    test_share: float = 0.21,
    validation_share: float = 0.16,
) -> Split:
    """Draw test patients first, then validation patients, by seed alone: labels play no part."""
    order = np.random.default_rng(seed).permutation(np.unique(patients))
    test = round(test_share * len(order))
    validation = test + round(validation_share * len(order))
    parts = order[validation:], order[test:validation], order[:test]
    return Split(*(np.sort(part) for part in parts))
