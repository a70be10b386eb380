"""Trainings of a study: what is learned from and predicted, resumed, and the same on a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import Split, auc, harrell_concordance
from slidetriage.models.learning import Recipe
from slidetriage.workflows.research import trainings as trainings_module
from slidetriage.workflows.research.cohort import Target
from slidetriage.workflows.research.cross_validation import (
    draw_rounds,
    list_trainings,
    run_trainings,
    unit_patients,
)
from slidetriage.workflows.research.study import Method, Study, make_bags
from slidetriage.workflows.research.tables import ColumnNames, read_cohort
from slidetriage.workflows.research.trainings import Outcome, Training, run_training
from slidetriage.workflows.resources import Resources

DIMENSION = 8
METHOD = Method(
    arguments={"hidden": 16, "attention": 8}, recipe=Recipe(epochs=12, batch=8, rate=5e-3)
)
SERIAL = Resources("serial")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 slides of 45 patients; tiles of positive ones are shifted, and their events come early."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    patient = np.array([f"P{number % 45:02}" for number in range(60)])
    label = np.array([int(name[1:]) % 2 for name in patient])
    by_patient = {name: rng.exponential(2.0 if int(name[1:]) % 2 else 12.0) for name in patient}
    bags = [rng.normal(0.8 * each, 1, (rng.integers(1, 12), DIMENSION)) for each in label]
    frame = pd.DataFrame({"slide": [f"s{number}" for number in range(60)], "patient": patient})
    frame["label"] = np.where(label == 1, "tumour", "normal")
    frame["months"] = [round(by_patient[name], 3) for name in patient]
    frame["died"] = [int(name[1:]) % 5 != 0 for name in patient]
    frame["age"] = [50 + int(name[1:]) for name in patient]
    frame.to_csv(folder / "slides.csv", index=False)
    np.savez(
        folder / "bags.npz",
        features=np.concatenate(bags).astype(np.float32),
        offsets=np.cumsum([0, *map(len, bags)]),
        slide_id=frame["slide"].to_numpy(str),
    )
    return folder / "slides.csv"


@pytest.fixture
def study(table: Path) -> Study:
    cohort = read_cohort(table, ColumnNames(label="label"), Target("classes", ("normal", "tumour")))
    return Study(cohort, table.with_name("bags.npz"), "simulated", METHOD)


@pytest.fixture
def survival(table: Path) -> Study:
    names = ColumnNames(time="months", event="died", covariates=("age",))
    cohort = read_cohort(table, names, Target("survival"))
    method = replace(METHOD, recipe=replace(METHOD.recipe, epochs=30, batch=16))
    return Study(cohort, table.with_name("bags.npz"), "simulated", method)


def trainings(study: Study, out: Path, *, folds: int = 3, seed: int = 0) -> list[Training]:
    return list_trainings(study, draw_rounds(study, folds=folds, seed=seed), seeds=[seed], out=out)


def same(one: Outcome, other: Outcome) -> bool:
    return (
        one.predictions.tobytes() == other.predictions.tobytes()
        and one.validation_predictions.tobytes() == other.validation_predictions.tobytes()
        and one.history == other.history
    )


def test_every_unit_is_predicted_once_by_a_model_that_never_saw_its_patient(
    study: Study, tmp_path: Path
) -> None:
    rounds = trainings(study, tmp_path)
    outcomes = run_trainings(rounds, SERIAL)
    tested = np.concatenate([outcome.test for outcome in outcomes])
    assert sorted(tested) == list(range(60))
    patients = unit_patients(study)
    for training in rounds:
        parts = [training.split.train, training.split.validation, training.split.test]
        held = [set(patients[part]) for part in parts]
        assert not held[0] & held[1]
        assert not (held[0] | held[1]) & held[2]
    assert study.cohort.labels is not None
    scores = np.concatenate([outcome.predictions[:, 1] for outcome in outcomes])
    assert auc(study.cohort.labels[tested] == 1, scores) > 0.85


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(study: Study, tmp_path: Path) -> None:
    here = run_trainings(trainings(study, tmp_path / "here"), SERIAL)
    told: list[str] = []
    there = run_trainings(
        trainings(study, tmp_path / "there"),
        Resources("dask", 2),
        follow=lambda outcome: told.append(outcome.name),
    )
    assert all(same(a, b) for a, b in zip(here, there, strict=True))
    assert sorted(told) == ["fold 0", "fold 1", "fold 2"]


def test_what_is_done_is_not_done_again_and_what_changed_is(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_trainings(trainings(study, tmp_path), SERIAL)
    begun: list[str] = []
    train = trainings_module._train

    def note(training: Training, *others: object) -> object:
        begun.append(training.name)
        return train(training, *others)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(trainings_module, "_train", note)
    again = run_trainings(trainings(study, tmp_path), SERIAL)
    assert begun == []
    assert all(same(a, b) for a, b in zip(done, again, strict=True))
    (tmp_path / "fold-1-seed-0" / "result.json").unlink()
    run_trainings(trainings(study, tmp_path), SERIAL)
    assert begun == ["fold 1"]
    changed = replace(study, method=replace(METHOD, head="max", arguments={"hidden": 16}))
    run_trainings(trainings(changed, tmp_path), SERIAL)
    assert begun == ["fold 1", "fold 0", "fold 1", "fold 2"]
    (tmp_path / "fold-1-seed-0" / "result.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        run_trainings(trainings(changed, tmp_path), SERIAL)


def test_metrics_go_to_csv_and_tensorboard(study: Study, tmp_path: Path) -> None:
    training = trainings(study, tmp_path)[0]
    outcome = run_training(training)
    rows = pd.read_csv(training.folder / "metrics.csv")
    assert rows["number"].tolist() == [epoch.number for epoch in outcome.history]
    losses = [epoch.validation_loss for epoch in outcome.history]
    assert rows["validation_loss"].tolist() == pytest.approx(losses)
    board = EventAccumulator(str(training.folder))
    board.Reload()
    shown = [event.value for event in board.Scalars("validation_loss")]
    assert shown == pytest.approx(losses)


def test_survival_is_of_patients_whose_slides_are_joined(survival: Study, tmp_path: Path) -> None:
    units = survival.units()
    assert len(units) == 45
    assert sum(len(rows) == 2 for rows in units) == 15
    source = survival.open()
    bags = make_bags(survival, source)
    joined = next(number for number, rows in enumerate(units) if len(rows) == 2)
    slides = [survival.cohort.slides[row] for row in units[joined]]
    expected = np.concatenate([source.load(slide).features for slide in slides])
    assert np.array_equal(bags.load(joined), expected)
    outcomes = run_trainings(trainings(survival, tmp_path), SERIAL)
    found = [
        harrell_concordance(bags.labels[o.test], bags.events[o.test], o.predictions[:, 0]).value
        for o in outcomes
    ]
    assert np.mean(found) > 0.6


def test_age_counts_only_where_it_is_asked_for(survival: Study, tmp_path: Path) -> None:
    without = replace(survival, method=replace(survival.method, covariates=False))
    split = draw_rounds(survival, folds=3, seed=0)[0][1]
    with_age = run_training(Training(survival, "a", split, 0, tmp_path / "a"))
    alone = run_training(Training(without, "b", split, 0, tmp_path / "b"))
    assert not np.allclose(with_age.predictions, alone.predictions)


def test_a_class_that_is_not_trained_on_is_an_error(study: Study, tmp_path: Path) -> None:
    assert study.cohort.labels is not None
    normal = np.flatnonzero(study.cohort.labels == 0)
    split = Split(normal[:10], normal[10:15], np.arange(15, 20))
    with pytest.raises(UsageError, match="'tumour'"):
        run_training(Training(study, "odd", split, 0, tmp_path / "odd"))
