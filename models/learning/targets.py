"""What a slide model learns to tell: a class, a number, or how long until an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from slidetriage.errors import UsageError

from .survival import cox_loss, discrete_time_loss, interval_of


class Labels(NamedTuple):
    """The truth of B slides or patients."""

    value: Tensor
    """B float; the number of the class, the value, or the time of the event or of last sight."""
    event: Tensor
    """B bool; whether the event was seen. True throughout where the target is no survival."""

    def take(self, rows: Tensor) -> Labels:
        """Those of some rows."""
        return Labels(self.value[rows], self.event[rows])


class Target(Protocol):
    """A kind of target: how many outputs the head has, the loss, and what outputs mean."""

    @property
    def outputs(self) -> int:
        """K, the outputs of the head."""
        ...

    def loss(self, logits: Tensor, labels: Labels) -> Tensor:
        """B x K logits and B labels -> the mean loss, a scalar."""
        ...

    def predict(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """B x K logits -> B x P: probabilities of classes, values, or one risk."""
        ...


@dataclass(frozen=True, slots=True)
class Classes:
    """One of two or more classes; with two, one logit for the second."""

    names: tuple[str, ...]
    weights: tuple[float, ...] = ()
    """Weight of each class in the loss; all 1 where empty."""

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise UsageError(
                f"Classes {self.names} are not two or more different ones.",
                mend="A label column needs at least two values.",
            )
        if self.weights and len(self.weights) != len(self.names):
            raise UsageError(f"{len(self.weights)} weights for {len(self.names)} classes.")

    @classmethod
    def balanced(cls, names: tuple[str, ...], labels: NDArray[np.int64]) -> Classes:
        """Weights so that every class counts the same: n / (C n_c), mean 1 over the rows."""
        counts = np.bincount(labels, minlength=len(names))
        if (counts == 0).any():
            missing = names[int(np.flatnonzero(counts == 0)[0])]
            raise UsageError(
                f"No slide to train on has the label {missing!r}.",
                mend="Give more slides, fewer folds, or leave the class out.",
            )
        weights = len(labels) / (len(names) * counts)
        return cls(names, tuple(float(weight) for weight in weights))

    @property
    def outputs(self) -> int:
        """K: 1 for two classes."""
        return 1 if len(self.names) == 2 else len(self.names)

    def loss(self, logits: Tensor, labels: Labels) -> Tensor:
        """Cross entropy, weighted by class."""
        weights = torch.tensor(self.weights or (1.0,) * len(self.names), device=logits.device)
        if self.outputs == 1:
            each = functional.binary_cross_entropy_with_logits(
                logits[:, 0], labels.value, reduction="none"
            )  # B
            return (each * weights[labels.value.long()]).mean()
        each = functional.cross_entropy(logits, labels.value.long(), reduction="none")  # B
        return (each * weights[labels.value.long()]).mean()

    def predict(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """B x K -> B x C probabilities."""
        wide = logits.astype(np.float64)
        if self.outputs == 1:
            wide = np.concatenate([np.zeros_like(wide), wide], axis=1)
        wide = np.exp(wide - wide.max(axis=1, keepdims=True))
        return np.asarray(wide / wide.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Regression:
    """A number; the head learns it with mean 0 and standard deviation 1."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Regression:
        """Mean and standard deviation of the values to train on."""
        sd = float(np.std(values))
        if not np.isfinite(values).all() or sd == 0:
            raise UsageError(
                "The values to learn are all the same, or some are not finite.",
                mend="Check the label column.",
            )
        return cls(float(np.mean(values)), sd)

    @property
    def outputs(self) -> int:
        """K = 1."""
        return 1

    def loss(self, logits: Tensor, labels: Labels) -> Tensor:
        """Huber's loss of the standardised value: a few outliers do not rule."""
        return functional.huber_loss(logits[:, 0], (labels.value - self.mean) / self.sd)

    def predict(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """B x 1 -> B x 1 in the unit of the labels."""
        return logits.astype(np.float64) * self.sd + self.mean


@dataclass(frozen=True, slots=True)
class Cox:
    """A log hazard relative to other patients, by the partial likelihood (see `cox_loss`)."""

    @property
    def outputs(self) -> int:
        """K = 1."""
        return 1

    def loss(self, logits: Tensor, labels: Labels) -> Tensor:
        """Over the risk sets within the batch, so batches must be large."""
        return cox_loss(logits[:, 0], labels.value, labels.event)

    def predict(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """B x 1 -> B x 1 log hazards; higher is sooner."""
        return logits.astype(np.float64)


@dataclass(frozen=True, slots=True)
class DiscreteTime:
    """The chance of the event in each of T intervals of time (see `discrete_time_loss`)."""

    edges: tuple[float, ...]
    """T - 1 rising times between the intervals; the last has no end."""

    def __post_init__(self) -> None:
        if not self.edges or not np.all(np.diff(self.edges) > 0) or self.edges[0] <= 0:
            raise UsageError(f"Edges of time {self.edges} do not rise from above 0.")

    @classmethod
    def of(
        cls, times: NDArray[np.float64], events: NDArray[np.bool_], intervals: int = 4
    ) -> DiscreteTime:
        """Edges at the quantiles of the times at which events were seen."""
        if int(events.sum()) < intervals:
            raise UsageError(
                f"{int(events.sum())} events are too few for {intervals} intervals of time.",
                mend="Choose fewer intervals, or the Cox target.",
            )
        quantiles = np.quantile(times[events], np.arange(1, intervals) / intervals)
        return cls(tuple(float(edge) for edge in np.unique(quantiles)))

    @property
    def outputs(self) -> int:
        """K = T."""
        return len(self.edges) + 1

    def loss(self, logits: Tensor, labels: Labels) -> Tensor:
        """The negative log likelihood."""
        interval = interval_of(labels.value, torch.tensor(self.edges, device=logits.device))
        return discrete_time_loss(logits, interval, labels.event)

    def predict(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """B x T -> B x 1: minus the expected number of intervals survived; higher is sooner.

        The sum over intervals of the survival function, as in Zadeh and Schmid (2021).
        """
        hazard = 1 / (1 + np.exp(-logits.astype(np.float64)))
        survival = np.cumprod(1 - hazard, axis=1)  # B x T
        return np.asarray(-survival.sum(axis=1, keepdims=True))


_proofs: tuple[type[Target], ...] = (Classes, Regression, Cox, DiscreteTime)
