"""Training: it learns what is there, stops in time, and goes on as if never broken off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slidetriage.errors import UsageError
from slidetriage.models.heads import build_head
from slidetriage.models.learning import (
    Classes,
    Cox,
    Epoch,
    LabelledBags,
    Recipe,
    SlideModel,
    Task,
    make_batch,
    predict_logits,
    train,
)

DIMENSION = 12


def draw_bags(count: int, seed: int, *, covariates: bool = False) -> LabelledBags:
    """A bag is positive where one to three of its tiles are shifted in three features."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    bags = []
    for label in labels:
        bag = rng.normal(size=(rng.integers(5, 40), DIMENSION)).astype(np.float32)
        if label:
            bag[: rng.integers(1, 4), :3] += 3
        bags.append(bag)
    columns = rng.normal(size=(count, 2)).astype(np.float32) if covariates else None
    return LabelledBags(bags.__getitem__, labels.astype(float), np.ones(count, bool), columns)


def make_model(seed: int = 0, covariates: int = 0) -> SlideModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SlideModel(build_head("gated_attention", DIMENSION, 1), covariates)


def weights(model: SlideModel) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


TASK = Task(Classes(("no", "yes")), draw_bags(60, 1), draw_bags(30, 2))
RECIPE = Recipe(epochs=12, batch=8, rate=3e-3, feature_noise=0.05, tile_dropout=0.1)


def test_it_learns_what_one_tile_in_ten_says() -> None:
    trained = train(make_model(), TASK, Recipe(epochs=25, batch=8, rate=3e-3), seed=0)
    held_out = draw_bags(80, 3)
    called = predict_logits(trained.model, held_out)[:, 0] > 0
    assert (called == (held_out.labels == 1)).mean() > 0.9
    losses = [epoch.validation_loss for epoch in trained.history]
    assert trained.best == 1 + len(losses) - 1 - int(np.argmin(losses[::-1]))


def test_the_weights_kept_are_those_of_the_best_epoch() -> None:
    seen: dict[int, bytes] = {}
    model = make_model()

    def follow(epoch: Epoch) -> None:
        seen[epoch.number] = weights(model)

    trained = train(model, TASK, RECIPE, seed=0, follow=follow)
    assert weights(trained.model) == seen[trained.best]
    assert not trained.model.training


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    first, again, other = (
        weights(train(make_model(), TASK, RECIPE, seed=seed).model) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


@pytest.mark.slow
@pytest.mark.parametrize("broken_off_after", [1, 4, 11])
def test_training_goes_on_as_if_never_broken_off(tmp_path: Path, broken_off_after: int) -> None:
    whole = train(make_model(), TASK, RECIPE, seed=3)

    def stop(epoch: Epoch) -> None:
        if epoch.number == broken_off_after:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "progress.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(make_model(), TASK, RECIPE, seed=3, checkpoint=checkpoint, follow=stop)
    gone_on = train(make_model(), TASK, RECIPE, seed=3, checkpoint=checkpoint)
    assert weights(gone_on.model) == weights(whole.model)
    assert gone_on.history == whole.history
    with pytest.raises(UsageError, match="seed 3, not 4"):
        train(make_model(), TASK, RECIPE, seed=4, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UsageError, match="no progress of this training"):
        train(make_model(), TASK, RECIPE, seed=3, checkpoint=checkpoint)


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    recipe = Recipe(epochs=200, batch=60, rate=1e-2, patience=3, least_epochs=2)
    trained = train(make_model(), TASK, recipe, seed=0)
    assert len(trained.history) < 200
    assert len(trained.history) - trained.best == 3


def test_covariates_alone_can_carry_the_answer() -> None:
    bags = draw_bags(300, 4, covariates=True)
    assert bags.covariates is not None
    noise = np.random.default_rng(0).normal(size=(300, 5, DIMENSION)).astype(np.float32)
    labels = (bags.covariates[:, 0] > 0).astype(float)
    blind = LabelledBags(noise.__getitem__, labels, np.ones(300, bool), bags.covariates)
    task = Task(Classes(("no", "yes")), blind.take(range(200)), blind.take(range(200, 300)))
    recipe = Recipe(epochs=30, batch=20, rate=1e-2)
    trained = train(make_model(covariates=2), task, recipe, seed=0)
    called = predict_logits(trained.model, task.validation)[:, 0] > 0
    assert (called == (task.validation.labels == 1)).mean() > 0.75
    assert trained.model.covariates is not None
    weight = trained.model.covariates.weight.detach().abs()[0]
    assert weight[0] > 3 * weight[1]


def test_cox_orders_patients_by_their_hazard() -> None:
    bags = draw_bags(120, 6)
    rng = np.random.default_rng(0)
    times = rng.exponential(np.where(bags.labels == 1, 1.0, 8.0))
    seen = times < rng.exponential(10, 120)
    survival = LabelledBags(bags.load, times, seen)
    task = Task(Cox(), survival.take(range(80)), survival.take(range(80, 120)))
    trained = train(make_model(), task, Recipe(epochs=30, batch=40, rate=3e-3), seed=0)
    risk = predict_logits(trained.model, task.validation)[:, 0]
    sick = bags.labels[80:] == 1
    assert risk[sick].mean() > risk[~sick].mean() + 0.5


def test_large_bags_are_drawn_from_and_small_ones_padded() -> None:
    bags = draw_bags(10, 0)
    rng = np.random.default_rng(0)
    batch = make_batch(bags, [0, 1, 2], most_tiles=6, rng=rng)
    assert batch.features.shape[1] <= 6
    for row, place in ((0, 0), (1, 1), (2, 2)):
        kept = batch.features[place][batch.mask[place]].numpy()
        rows = {tile.tobytes() for tile in bags.load(row)}
        assert {tile.tobytes() for tile in kept} <= rows
        assert len(kept) == min(6, len(bags.load(row)))


def test_bad_bags_are_refused() -> None:
    good = draw_bags(4, 0)
    with pytest.raises(UsageError, match="not tiles x features"):
        make_batch(
            LabelledBags(lambda row: np.empty((0, 3), np.float32), good.labels, good.events), [0]
        )
    with pytest.raises(UsageError, match="not finite"):
        make_batch(
            LabelledBags(lambda row: np.full((2, 3), np.nan, np.float32), good.labels, good.events),
            [0],
        )
    with pytest.raises(UsageError, match="label of bag 1 is no number"):
        LabelledBags(good.load, np.array([0.0, np.nan]), np.ones(2, bool))
    with pytest.raises(UsageError, match="too few"):
        Task(Classes(("no", "yes")), good, good.take([]))
