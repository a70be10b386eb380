"""The shipped bundle keeps what its card says, on patients it never saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import slidetriage
from slidetriage.models import Bag, Bundle

NAME = "breast-idc-scout"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return slidetriage.load_bundle(NAME)


@pytest.fixture(scope="module")
def held_out(
    data: Callable[[str], Path], bundle: Bundle
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and patients of every tile of the test patients named in the card."""
    with np.load(data("idc/idc_tiles.npz")) as tiles:
        keep = np.isin(tiles["patient"].astype(str), bundle.card.training.test_patients)
        images, labels, patients = (tiles[k][keep] for k in ("image", "label", "patient"))
    return bundle.encode(images), labels, patients


def figure(bundle: Bundle, name: str) -> float:
    return next(metric.value for metric in bundle.card.metrics if metric.name == name)


def test_figures_of_the_card_hold_on_the_test_patients(
    bundle: Bundle, held_out: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    features, labels, patients = held_out
    assert len(np.unique(patients)) >= 42
    scores = bundle.score_features(features)
    auc = roc_auc_score(labels, scores)
    balanced = balanced_accuracy_score(labels, scores >= bundle.card.tile_threshold.value)
    assert auc >= 0.91
    assert balanced >= 0.84
    assert auc == pytest.approx(figure(bundle, "tile AUC"), abs=0.002)
    assert balanced == pytest.approx(figure(bundle, "tile balanced accuracy"), abs=0.004)
    assert np.mean((scores - labels) ** 2) == pytest.approx(
        figure(bundle, "tile Brier score"), abs=0.002
    )


def test_slide_score_tells_patients_with_tumour_tiles_apart(
    bundle: Bundle, held_out: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    features, labels, patients = held_out
    whole, without = [], []
    for patient in np.unique(patients):
        mine, tumour = patients == patient, labels == 1
        if (mine & tumour).sum() >= 3 and (mine & ~tumour).sum() >= 10:
            for rows, found in ((mine, whole), (mine & ~tumour, without)):
                bag = Bag(features[rows], np.zeros((rows.sum(), 2), np.float32))
                found.append(bundle.predict(bag).probability)
    assert len(whole) >= 20
    truth = [1] * len(whole) + [0] * len(without)
    assert roc_auc_score(truth, whole + without) >= 0.85
    assert np.mean(np.array(whole) >= bundle.card.slide_threshold.value) >= 0.85


def test_whole_section_of_an_unseen_patient(data: Callable[[str], Path], bundle: Bundle) -> None:
    with Image.open(data("slides/idc_14082.tif")) as image:
        section = np.asarray(image.convert("RGB"))
    with Image.open(data("slides/idc_14082_labels.png")) as image:
        labels = np.asarray(image)
    rows, columns = section.shape[0] // 50, section.shape[1] // 50
    boxes = [(50 * r, 50 * c) for r in range(rows) for c in range(columns)]
    parts = [np.bincount(labels[y : y + 50, x : x + 50].ravel(), minlength=3) for y, x in boxes]
    counts = np.array(parts)
    tissue = counts[:, 0] <= 1250
    truth = counts[tissue, 2] > counts[tissue, 1]
    tiles = [section[y : y + 50, x : x + 50] for y, x in boxes]
    images = np.stack([tile for tile, keep in zip(tiles, tissue, strict=True) if keep])
    features = bundle.encode(images)
    scores = bundle.score_features(features)
    assert roc_auc_score(truth, scores) >= 0.95
    called = scores >= bundle.card.tile_threshold.value
    assert 2 * (called & truth).sum() / (called.sum() + truth.sum()) >= 0.85
    bag = Bag(features, np.zeros((len(features), 2), np.float32))
    prediction = bundle.predict(bag)
    assert prediction.probability >= bundle.card.slide_threshold.value
    assert prediction.attention[truth].sum() > truth.mean()


def test_blank_glass_scores_low(bundle: Bundle) -> None:
    shades = np.array([[255] * 3, [243] * 3, [230, 228, 232], [215] * 3, [244, 238, 246]])
    noise = np.random.default_rng(0).normal(0, 2, (5, 50, 50, 3))
    tiles = (shades[:, None, None] + noise).clip(0, 255).astype(np.uint8)
    assert bundle.tile_scores(tiles).max() < bundle.card.tile_threshold.value / 2


def test_score_does_not_depend_on_batch_mates(bundle: Bundle) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (40, 50, 50, 3), np.uint8)
    scores = bundle.tile_scores(tiles)
    assert bundle.tile_scores(tiles[37:38]).tobytes() == scores[37:38].tobytes()
    assert bundle.tile_scores(tiles[::-1])[::-1].tobytes() == scores.tobytes()


def test_verdicts_keep_what_the_card_says_on_patients_it_never_saw(
    bundle: Bundle, held_out: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """One bag of each kind for each patient: the error rate holds within what chance allows."""
    features, labels, patients = held_out
    truth, scores, far = [], [], []
    card = bundle.card
    assert card.conformal is not None
    assert card.rule_out is not None
    assert card.novelty is not None
    for patient in np.unique(patients):
        for kind in (0, 1):
            rows = (patients == patient) & ((labels == 0) | (kind == 1))
            if rows.sum() >= 10 and (kind == 0 or labels[rows].sum() >= 3):
                bag = Bag(features[rows], np.zeros((rows.sum(), 2), np.float32))
                found = bundle.predict(bag)
                truth.append(kind)
                scores.append(found.probability)
                assert found.novelty is not None
                far.append(found.novelty > card.novelty.limit)
    positive, score = np.array(truth) == 1, np.array(scores)
    sets = card.conformal.sets(score)
    covered = sets[np.arange(len(sets)), positive.astype(int)]
    allowed = card.conformal.error_rate + 2 * np.sqrt(0.1 * 0.9 / positive.sum())
    assert 1 - covered[positive].mean() <= allowed
    assert (score[positive] < card.rule_out.value).mean() <= 0.06
    assert np.mean(far) <= 0.2
    assert ((sets.sum(1) == 1) & covered).mean() > 0.4, "a rule that always abstains is of no use"


def test_what_is_not_breast_is_novel(bundle: Bundle, data: Callable[[str], Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 50, 50, 3), np.uint8)
    assert bundle.card.novelty is not None
    for tiles in (noise, np.full_like(noise, [60, 160, 60])):
        found = bundle.predict(Bag(bundle.encode(tiles), np.zeros((20, 2), np.float32)))
        assert found.novelty is not None
        assert found.novelty > bundle.card.novelty.limit


def test_card_says_what_it_must(bundle: Bundle) -> None:
    card = bundle.card
    assert card.name == NAME
    assert card.intended_use == ("For Research Use Only. Not for use in diagnostic procedures.")
    assert (card.mpp, card.tile_px, card.stain, card.licence) == (4.0, 50, "H&E", "Apache-2.0")
    assert card.positive.qupath_class == "Tumor"
    assert len(card.training.data[0].citations) == 2
    assert not set(card.training.test_patients) & set(card.training.validation_patients)
    assert card.weights.sha256 in bundle.encoder.identifier
