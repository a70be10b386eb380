"""Labelled bags to learn from, and batches of them, padded to the largest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slidetriage.errors import UsageError

from .targets import Labels


@dataclass(frozen=True, slots=True, eq=False)
class LabelledBags:
    """Bags with their truth and their covariates; features are loaded when they are asked for."""

    load: Callable[[int], NDArray[np.float32]]
    """Number of a bag -> N x D, from 1 tile up."""
    labels: NDArray[np.float64]
    """M; see `Labels.value`."""
    events: NDArray[np.bool_]
    """M; see `Labels.event`."""
    covariates: NDArray[np.float32] | None = None
    """M x C."""

    def __post_init__(self) -> None:
        count = len(self.labels)
        if len(self.events) != count or (
            self.covariates is not None and len(self.covariates) != count
        ):
            raise UsageError("Labels, events and covariates must have a row for each bag.")
        if not np.isfinite(self.labels).all():
            row = int(np.flatnonzero(~np.isfinite(self.labels))[0])
            raise UsageError(f"The label of bag {row} is no number.", mend="Leave that bag out.")

    def __len__(self) -> int:
        return len(self.labels)

    def truth(self) -> Labels:
        """The labels of all bags."""
        return Labels(
            torch.from_numpy(self.labels.astype(np.float32)), torch.from_numpy(self.events)
        )

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> LabelledBags:
        """Some of the bags, in the order given."""
        places = np.asarray(rows, np.int64)
        covariates = None if self.covariates is None else self.covariates[places]
        return LabelledBags(
            lambda row: self.load(int(places[row])),
            self.labels[places],
            self.events[places],
            covariates,
        )


class Batch(NamedTuple):
    """Some bags, padded."""

    features: Tensor
    """B x N x D."""
    mask: Tensor
    """B x N bool."""
    labels: Labels
    covariates: Tensor | None
    """B x C."""


def make_batch(
    bags: LabelledBags,
    rows: Sequence[int],
    *,
    most_tiles: int | None = None,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Load bags and pad them; of a larger one, `most_tiles` are drawn without replacement."""
    loaded = [_load(bags, row, most_tiles, rng) for row in rows]
    longest = max(len(features) for features in loaded)
    features = torch.zeros(len(rows), longest, loaded[0].shape[1])
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, each in enumerate(loaded):
        features[place, : len(each)] = torch.from_numpy(each)
        mask[place, : len(each)] = True
    chosen = np.asarray(rows, np.int64)
    labels = Labels(
        torch.from_numpy(bags.labels[chosen].astype(np.float32)),
        torch.from_numpy(bags.events[chosen]),
    )
    covariates = None
    if bags.covariates is not None:
        covariates = torch.from_numpy(bags.covariates[chosen])
    return Batch(features, mask, labels, covariates)


def _load(
    bags: LabelledBags, row: int, most_tiles: int | None, rng: np.random.Generator | None
) -> NDArray[np.float32]:
    features = np.asarray(bags.load(row), np.float32)
    if features.ndim != 2 or len(features) == 0:
        raise UsageError(
            f"Bag {row} has features of shape {features.shape}, not tiles x features.",
            mend="A slide without tiles cannot be learned from; leave it out.",
        )
    if not np.isfinite(features).all():
        raise UsageError(
            f"Bag {row} has features that are not finite.",
            mend="Tiles that could not be read must be left out; extract the features again.",
        )
    if most_tiles is not None and rng is not None and len(features) > most_tiles:
        features = features[rng.choice(len(features), most_tiles, replace=False)]
    return features
