"""The training loop: batches of bags, early stopping, the same result when it was broken off."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slidetriage.errors import ModelError, UsageError

from .bags import LabelledBags, make_batch
from .checkpoints import Progress, load_progress, save_progress
from .fusion import SlideModel
from .targets import Classes, Cox, Target

COVARIATE_RATE = 10.0
"""How much faster covariates learn than the head: they are few and standardised, and the head,
with a thousand times their weights, would fit the labels it trains on before they count."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but data, model and seed that decides what comes out of training."""

    epochs: int = 50
    batch: int = 16
    """Bags per step."""
    most_tiles: int | None = 4096
    """Tiles of a bag at most per step, drawn anew each time; None takes all."""
    rate: float = 2e-4
    weight_decay: float = 1e-3
    warm_up: int = 2
    """Epochs over which the rate rises; then it falls along a cosine."""
    patience: int = 10
    """Epochs without a better validation loss after which training stops."""
    least_epochs: int = 5
    feature_noise: float = 0.0
    """Noise on the features, relative to each feature's spread over the batch."""
    tile_dropout: float = 0.0
    """Share of the tiles of a bag left out at random in each step."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    mixed_precision: bool = False
    """Whether the head computes in bfloat16 while training."""

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch", 1), ("patience", 1), ("most_tiles", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"{name} is {value}; it must be at least {low}.")
        if not 0 <= self.tile_dropout < 1 or self.rate <= 0:
            raise UsageError("tile_dropout must lie in [0, 1) and rate above 0.")


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave."""

    number: int
    """From 1."""
    train_loss: float
    validation_loss: float
    rate: float


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model with the weights of its best epoch."""

    model: SlideModel
    history: tuple[Epoch, ...]
    best: int
    """Number of the epoch whose weights were kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is to be learned, and from what."""

    target: Target
    bags: LabelledBags
    """To learn from."""
    validation: LabelledBags
    """To decide by when to stop; no patient may be in both."""

    def __post_init__(self) -> None:
        if not len(self.bags) or not len(self.validation):
            raise UsageError(
                f"{len(self.bags)} slides to train on and {len(self.validation)} to validate on "
                "are too few.",
                mend="Training needs both; give more slides, or fewer folds.",
            )


def train(
    model: SlideModel,
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    follow: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train a model in place and keep the weights of the epoch of least validation loss.

    Parameters
    ----------
    model
        Trained on the device it lies on.
    task
        What is learned, and from what.
    recipe
        How.
    seed
        Decides order, draws of tiles and dropout; the weights the model comes with are its own.
    checkpoint
        A file that is written after every epoch. Where it exists, training goes on from there,
        and ends with the same weights as if it had never been broken off.
    follow
        Is told of every epoch.

    Raises
    ------
    UsageError
        The checkpoint is of another training.
    ModelError
        The loss is no number any more (E_MODEL_NAN).
    """
    # Fused: of a step with one small bag the optimiser is a third otherwise.
    optimiser = torch.optim.AdamW(_groups(model), weight_decay=recipe.weight_decay, fused=True)
    progress = Progress.begin(model, seed)
    if checkpoint is not None and checkpoint.exists():
        progress = load_progress(checkpoint, model, optimiser, seed=seed)
    history = [Epoch(int(row[0]), *row[1:]) for row in progress.history]
    step = _Step(model, task.target, recipe, optimiser)
    with torch.random.fork_rng(devices=[]):
        while len(history) < recipe.epochs and not _patience_is_out(history, recipe):
            epoch = _run_epoch(step, task, len(history), seed)
            history.append(epoch)
            if epoch.validation_loss <= min(each.validation_loss for each in history):
                progress = progress.with_best(model)
            progress = progress.with_history([_row(each) for each in history])
            if checkpoint is not None:
                save_progress(checkpoint, progress, model, optimiser)
            if follow is not None:
                follow(epoch)
    model.load_state_dict(progress.best)
    model.eval()
    best = min(history, key=lambda each: (each.validation_loss, -each.number))
    return Trained(model, tuple(history), best.number)


@torch.inference_mode()
def predict_logits(model: SlideModel, bags: LabelledBags) -> NDArray[np.float32]:
    """M x K logits, one bag at a time with all its tiles; the model is put in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    found = []
    for row in range(len(bags)):
        batch = make_batch(bags, [row])
        covariates = None if batch.covariates is None else batch.covariates.to(device)
        output = model(batch.features.to(device), batch.mask.to(device), covariates)
        found.append(output.slide_logit.float().cpu().numpy())
    return np.concatenate(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    model: SlideModel
    target: Target
    recipe: Recipe
    optimiser: torch.optim.Optimizer

    def take(self, bags: LabelledBags, rows: list[int], rng: np.random.Generator) -> float:
        """One step of the optimiser; returns the loss."""
        device = next(self.model.parameters()).device
        batch = make_batch(bags, rows, most_tiles=self.recipe.most_tiles, rng=rng)
        features = _disturb(batch.features, batch.mask, self.recipe.feature_noise).to(device)
        mask = _thin(batch.mask, self.recipe.tile_dropout).to(device)
        labels = type(batch.labels)(*(part.to(device) for part in batch.labels))
        covariates = None if batch.covariates is None else batch.covariates.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.mixed_precision):
            output = self.model(features, mask, covariates)
        classes = labels.value.long() if isinstance(self.target, Classes) else None
        loss = self.target.loss(output.slide_logit.float(), labels)
        share = self.model.head.auxiliary_weight
        if share and classes is not None:
            other = self.model.head.auxiliary_loss(output, features, mask, classes)  # B
            loss = (1 - share) * loss + share * other.float().mean()
        if not torch.isfinite(loss):
            raise ModelError(
                "The loss is no number any more.",
                mend="Lower the rate, and check the features for outliers.",
                code="E_MODEL_NAN",
            )
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        return float(loss.detach())


def _run_epoch(step: _Step, task: Task, done: int, seed: int) -> Epoch:
    # Each epoch has its own seeds, so that one that is gone on with draws what it would have.
    rng = np.random.default_rng((seed, done))
    torch.manual_seed(int(rng.integers(2**62)))
    rate = _rate(done, step.recipe)
    for group in step.optimiser.param_groups:
        group["lr"] = rate * group["times"]
    step.model.train()
    losses = [step.take(task.bags, rows, rng) for rows in _draw_rows(task.bags, step, rng)]
    logits = torch.from_numpy(predict_logits(step.model, task.validation))
    loss = float(step.target.loss(logits, task.validation.truth()))
    return Epoch(done + 1, float(np.mean(losses)), loss, rate)


def _draw_rows(bags: LabelledBags, step: _Step, rng: np.random.Generator) -> list[list[int]]:
    """The bags of an epoch in batches, in random order; the last may be smaller."""
    order = rng.permutation(len(bags)).tolist()
    size = step.recipe.batch
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if isinstance(step.target, Cox):
        # A batch without an event, or with one patient, teaches nothing.
        batches = [rows for rows in batches if len(rows) > 1 and bags.events[rows].any()]
    if not batches:
        raise UsageError(
            "No batch has two patients and an event.", mend="Make batches larger, or give more."
        )
    return batches


def _rate(epoch: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine to 0 over the epochs there may be."""
    if epoch < recipe.warm_up:
        return recipe.rate * (epoch + 1) / (recipe.warm_up + 1)
    share = (epoch - recipe.warm_up) / max(1, recipe.epochs - recipe.warm_up)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * share))


def _patience_is_out(history: list[Epoch], recipe: Recipe) -> bool:
    if len(history) < recipe.least_epochs or not history:
        return False
    losses = [epoch.validation_loss for epoch in history]
    best = len(losses) - 1 - int(np.argmin(losses[::-1]))
    return len(losses) - 1 - best >= recipe.patience


def _disturb(features: Tensor, mask: Tensor, noise: float) -> Tensor:
    """Add Gaussian noise relative to each feature's spread over all tiles of the batch."""
    if noise == 0:
        return features
    spread = features[mask].std(dim=0, correction=0)  # D
    return features + noise * spread * torch.randn_like(features) * mask[..., None]


def _thin(mask: Tensor, share: float) -> Tensor:
    """Leave tiles out at random, but never all of a bag."""
    if share == 0:
        return mask
    kept = mask & (torch.rand(mask.shape) >= share)  # B x N
    return torch.where(kept.any(1, keepdim=True), kept, mask)


def _groups(model: SlideModel) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = [{"params": list(model.head.parameters()), "times": 1.0}]
    if model.covariates is not None:
        shift = list(model.covariates.parameters())
        groups.append({"params": shift, "times": COVARIATE_RATE})
    return groups


def _row(epoch: Epoch) -> tuple[float, ...]:
    return (epoch.number, epoch.train_loss, epoch.validation_loss, epoch.rate)
