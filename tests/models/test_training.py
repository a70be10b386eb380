"""The training of the shipped bundle: its parts, and the script from end to end on a few tiles."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from breast_idc.augment import augment, paint_blank
from breast_idc.bag_stage import BagMaker, BagRecipe, TileFeatures
from breast_idc.distillation import soften
from breast_idc.measures import (
    best_threshold,
    f1,
    measures,
    sensitivity,
    threshold_for_sensitivity,
    with_intervals,
)
from breast_idc.tile_stage import (
    TileClassifier,
    TileRecipe,
    score_plain,
    unfold_normalisation,
)
from breast_idc.tiles import LabelledTiles, split_patients
from sklearn.metrics import f1_score

from slidetriage.models import load_bundle

SCRIPT = Path(__file__).parents[2] / "tools" / "train_breast_idc_scout.py"


def test_split_is_disjoint_complete_and_decided_by_seed() -> None:
    patients = np.repeat(np.arange(100, 307), 3)
    split = split_patients(patients, seed=14)
    parts = [set(part.tolist()) for part in (split.train, split.validation, split.test)]
    assert set.union(*parts) == set(range(100, 307))
    assert sum(map(len, parts)) == 207
    assert len(split.test) == 43
    shuffled = np.random.default_rng(0).permutation(patients)
    np.testing.assert_array_equal(split_patients(shuffled, seed=14).test, split.test)
    assert set(split_patients(patients, seed=15).test.tolist()) != parts[2]


def test_augmentation_is_bounded_random_and_repeatable() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 50, 50, 3), np.uint8)
    one, again, other = (augment(images, 48, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.shape == (8, 3, 48, 48)
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_blank_tiles_are_mostly_bright() -> None:
    tiles = paint_blank(200, 50, np.random.default_rng(0))
    assert tiles.dtype == np.uint8
    assert np.median(tiles) > 200
    assert len(np.unique(tiles.mean((1, 2)), axis=0)) > 190


@torch.inference_mode()
def test_unfolding_keeps_the_function_and_frees_training_mode() -> None:
    torch.manual_seed(0)
    model = TileClassifier(TileRecipe(drop_path=0, dropout=0), None)
    torch.nn.init.normal_(model.classifier.weight)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.bias.normal_()
    x = torch.rand(16, 3, 64, 64)
    before = model.eval()(x)
    unfold_normalisation(model, x)
    np.testing.assert_allclose(model.eval()(x), before, rtol=1e-2, atol=1e-3)
    # Statistics of the same batch are now the stored ones, so training mode agrees too.
    np.testing.assert_allclose(model.train()(x), before, rtol=0.05, atol=0.05)


@torch.inference_mode()
def test_labels_are_softened_by_teachers_who_see_all_sides() -> None:
    torch.manual_seed(0)
    teachers = [TileClassifier(TileRecipe(), None).eval() for _ in range(2)]
    for teacher in teachers:
        torch.nn.init.normal_(teacher.classifier.weight)
    images = np.random.default_rng(0).integers(0, 256, (6, 50, 50, 3), np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1], np.float64)
    tiles = LabelledTiles(images, labels, np.arange(6))
    soft = soften(tiles, teachers, share=0.6, input_px=32)
    sides = [
        np.ascontiguousarray(np.rot90(image, quarters, (1, 2)))
        for image in (images, images[:, :, ::-1])
        for quarters in range(4)
    ]
    logits = [score_plain(teacher, side, 32) for teacher in teachers for side in sides]
    p = 1 / (1 + np.exp(-np.mean(logits, 0)))
    assert p.std() > 0.002
    np.testing.assert_allclose(soft.labels, 0.4 * labels + 0.6 * p, atol=1e-5)
    assert (labels == tiles.labels).all()
    turned = LabelledTiles(np.rot90(images, 1, (1, 2))[:, ::-1], labels, np.arange(6))
    again = soften(turned, teachers, share=0.6, input_px=32)
    np.testing.assert_allclose(again.labels, soft.labels, atol=1e-4)


def test_bags_are_of_one_patient_and_mix_as_said() -> None:
    rng = np.random.default_rng(0)
    patients, labels = np.repeat([1, 2, 3], 20), np.tile([0] * 14 + [1] * 6, 3)
    labels[patients == 3] = 0
    features = np.stack([patients, labels], 1)[:, None].astype(np.float32)
    recipe = BagRecipe(feature_noise=0)
    maker = BagMaker(TileFeatures(features, labels, patients), recipe)
    assert maker.negatives == [1, 2, 3]
    assert maker.positives == [1, 2]
    shares = []
    for _ in range(300):
        size = maker.draw_size(rng)
        assert recipe.smallest <= size <= recipe.largest
        bag, count = maker.draw(2, True, size, rng)
        assert (bag[:, 0] == 2).all()
        assert bag[:, 1].sum() == count >= 1
        shares.append(count / size)
        assert maker.draw(3, False, size, rng)[0][:, 1].sum() == 0
    assert min(shares) < 0.05
    assert 0.6 < max(shares) <= 0.81


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits of which sigmoid(logit / 2) is the true probability, and the outcomes."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 4, 20_000)
    return logits, rng.random(20_000) < 1 / (1 + np.exp(-logits / 2))


def test_thresholds(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, truth = scored
    p = 1 / (1 + np.exp(-logits / 2))
    # For probabilities that are true, balanced accuracy is best at the prevalence, F1 at half of
    # the best F1; the best of their mean lies between.
    best_f1 = max(f1(p, truth, t) for t in np.linspace(0.1, 0.9, 81))
    low, high = sorted((truth.mean(), best_f1 / 2))
    assert low - 0.03 <= best_threshold(p, truth) <= high + 0.03
    threshold = threshold_for_sensitivity(p, truth, 0.95)
    assert 0.95 <= sensitivity(p, truth, threshold) < 0.96


def test_f1_and_intervals(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, truth = scored[0][:600], scored[1][:600]
    p = 1 / (1 + np.exp(-logits / 2))
    assert f1(p, truth, 0.4) == pytest.approx(f1_score(truth, p >= 0.4))
    patients = np.repeat(np.arange(30), 20)
    found = with_intervals(p, truth, patients, wanted=measures(0.5), seed=0, rounds=50)
    for value, low, high in found.values():
        assert low <= high
        assert low - 0.03 <= value <= high + 0.03
    assert found["AUC"][2] - found["AUC"][1] > 0.01


@pytest.mark.slow
def test_script_makes_a_bundle_that_loads(data: Callable[[str], Path], tmp_path: Path) -> None:
    root = data("idc/idc_tiles.npz").parents[1]
    out, metrics = tmp_path / "bundle", tmp_path / "metrics.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--threads", "1"]
    command += ["--data", str(root), "--out", str(out), "--metrics", str(metrics)]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    bundle = load_bundle(out)
    found = {item["name"]: item["value"] for item in json.loads(metrics.read_text())["metrics"]}
    assert found == {metric.name: metric.value for metric in bundle.card.metrics}
    assert set(found) >= {"tile AUC", "slide AUC", "slide conformal coverage", "slide ruled out"}
    assert bundle.card.training.patients == 8
    assert bundle.card.calibration is not None
    assert bundle.novelty is not None
    point = bundle.card.rule_out
    assert point is not None
    assert point.sensitivity >= 0.99
    assert point.value <= bundle.card.slide_threshold.value
