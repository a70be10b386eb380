"""Rows of several models are laid beside one another, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from simulated_predictions import simulate
from slidetriage.errors import UsageError
from slidetriage.models.evaluation import threshold_at_sensitivity
from slidetriage.workflows.research.cohort import Column
from slidetriage.workflows.research.compare_matching import match_models
from slidetriage.workflows.research.predictions import Predictions


def shuffle(p: Predictions, seed: int = 3) -> Predictions:
    return p.take(np.random.default_rng(seed).permutation(len(p)))


def other_scores(p: Predictions, seed: int = 1) -> Predictions:
    """The same rows with scores of their own."""
    rng = np.random.default_rng(seed)
    if p.kind != "classes":
        return replace(p, score=rng.normal(size=p.score.shape))
    return replace(p, score=rng.dirichlet(np.ones(len(p.classes)), len(p)))


def as_frame(p: Predictions) -> pd.DataFrame:
    return pd.DataFrame({
        "slide": p.slide, "patient": p.patient, "fold": p.fold, "seed": p.seed, "part": p.part,
        "score": p.score[:, -1], "first": p.score[:, 0],
    })  # fmt: skip


def only_test(p: Predictions) -> pd.DataFrame:
    frame = as_frame(p)
    return frame[frame["part"] == "test"]


def repeat_folds(p: Predictions) -> Predictions:
    """Every slide tested in two more folds, with other scores: cross-validation run twice."""
    again = other_scores(p, seed=8)
    turned = replace(again, fold=np.char.add("again ", again.fold))
    columns = {
        name: np.concatenate([getattr(p, name), getattr(turned, name)])
        for name in ("slide", "patient", "fold", "seed", "part", "score", "label")
    }
    return replace(p, **columns, site=None, subgroups=(), excluded=())


def test_rows_are_laid_beside_one_another_whatever_their_order() -> None:
    a, b = simulate(), other_scores(simulate())
    matched = match_models({"a": a, "b": shuffle(b)})
    assert [model.name for model in matched.models] == ["a", "b"]
    assert (matched.unit, matched.baseline.name) == ("slide", "a")
    for model, p in zip(matched.models, (a, b), strict=True):
        wanted = only_test(p).set_index("slide").loc[model.table.slide.tolist()]
        assert model.table.score[:, 1] == pytest.approx(wanted["score"].to_numpy())
        assert model.table.patient.tolist() == wanted["patient"].tolist()
    assert matched.models[0].table.label == pytest.approx(matched.models[1].table.label)
    assert matched.models[0].homes == matched.models[1].homes


def test_seeds_and_folds_are_averaged() -> None:
    a, b = repeat_folds(simulate()), other_scores(simulate(seeds=3))
    matched = match_models({"a": a, "b": b})
    first, second = matched.models
    mean = only_test(a).groupby("slide")["score"].mean()
    assert first.table.score[:, 1] == pytest.approx(mean[first.table.slide].to_numpy())
    mean = only_test(b).groupby("slide")["score"].mean()
    assert second.table.score[:, 1] == pytest.approx(mean[second.table.slide].to_numpy())
    assert (first.repeated, first.seeds, len(first.risk)) == (160, 1, 4)
    assert (second.repeated, second.seeds, len(second.risk)) == (0, 3, 2)


def with_ties(p: Predictions) -> Predictions:
    """With scores so coarse that many stand on a threshold."""
    score = np.round(p.score[:, 1], 1)
    return replace(p, score=np.stack([1 - score, score], axis=1))


def test_the_thresholds_are_those_of_each_models_own_validation_rows() -> None:
    a, b = simulate(), with_ties(other_scores(simulate()))
    for model, p in zip(match_models({"a": a, "b": b}).models, (a, b), strict=True):
        assert list(model.called) == ["99%", "95%"]
        for asked, called in zip((0.99, 0.95), model.called.values(), strict=True):
            wanted = {}
            for fold in p.folds:
                held, own = p.rows(fold, "validation"), p.rows(fold, "test")
                assert p.label is not None
                threshold = threshold_at_sensitivity(p.label[held], p.score[held, 1], asked)
                calls = (p.score[own, 1] >= threshold).tolist()
                wanted |= dict(zip(p.slide[own].tolist(), calls, strict=True))
            assert called.tolist() == [wanted[slide] for slide in model.table.slide.tolist()]


def test_a_slide_of_several_folds_is_called_by_its_mean_distance_from_their_thresholds() -> None:
    p = repeat_folds(simulate())
    model = match_models({"a": p, "b": simulate()}).models[0]
    assert p.label is not None
    distance: dict[str, list[float]] = {}
    for fold in p.folds:
        held, own = p.rows(fold, "validation"), p.rows(fold, "test")
        threshold = threshold_at_sensitivity(p.label[held], p.score[held, 1], 0.95)
        for slide, score in zip(p.slide[own].tolist(), p.score[own, 1].tolist(), strict=True):
            distance.setdefault(slide, []).append(score - threshold)
    wanted = [np.mean(distance[slide]) >= 0 for slide in model.table.slide.tolist()]
    assert {len(each) for each in distance.values()} == {2}
    assert model.called["95%"].tolist() == wanted


def test_one_half_is_the_threshold_of_all_where_one_has_no_validation() -> None:
    matched = match_models({"a": simulate(), "b": simulate(validation=False)})
    assert matched.without_thresholds == ("b",)
    for model in matched.models:
        assert list(model.called) == ["0.5"]
        assert model.called["0.5"].tolist() == (model.table.score[:, 1] >= 0.5).tolist()


def test_only_what_all_tested_is_kept_and_the_rest_is_counted() -> None:
    p = simulate(validation=False)
    numbers = np.array([int(name.split()[1]) for name in p.slide])
    tables = {
        name: p.take(np.flatnonzero(kept))
        for name, kept in {
            "a": numbers >= 10, "b": numbers < 150, "c": numbers != 20,
        }.items()
    }  # fmt: skip
    matched = match_models(tables)
    left = {f"slide {number}" for number in range(10, 150) if number != 20}
    for model in matched.models:
        assert set(model.table.slide.tolist()) == left
    assert [model.tested for model in matched.models] == [150, 150, 159]


def test_what_is_only_validated_is_not_compared() -> None:
    p = simulate()
    fold = p.take(np.flatnonzero(p.fold == "fold 0"))  # tests one half, validates on the other
    matched = match_models({"a": p, "b": fold})
    assert set(matched.baseline.table.slide.tolist()) == set(
        fold.slide[fold.part == "test"].tolist()
    )


def test_survival_is_matched_by_patient_and_measured_fold_by_fold() -> None:
    p = simulate("survival", seeds=2)
    renamed = replace(p, slide=np.char.add("bag of ", p.patient))
    matched = match_models({"a": p, "b": renamed})
    assert matched.unit == "patient"
    for model in matched.models:
        assert model.table.slide.tolist() == model.table.patient.tolist()
        mean = only_test(p).groupby(["fold", "patient"])["first"].mean()
        for row, fold in zip(model.risk, p.folds, strict=True):
            own = np.isfinite(row)
            assert set(model.table.patient[own].tolist()) == set(mean[fold].index)
            wanted = mean[fold][model.table.patient[own].tolist()].to_numpy()
            assert row[own] == pytest.approx(wanted)
        assert model.repeated == 0


def test_sites_and_columns_that_only_others_have_are_taken() -> None:
    p = simulate()
    bare = replace(p, site=None, subgroups=(Column("age", "number", np.full(len(p), 7.0)),))
    table = match_models({"a": bare, "b": shuffle(p)}).baseline.table
    assert [column.name for column in table.subgroups] == ["age", "sex"]
    assert set(table.subgroups[0].values.tolist()) == {7.0}  # the baseline's own
    homes = dict(zip(p.slide.tolist(), (p.site if p.site is not None else p.slide), strict=True))
    assert table.site is not None
    assert table.site.tolist() == [homes[slide] for slide in table.slide.tolist()]


def change_label(p: Predictions) -> Predictions:
    assert p.label is not None
    odd = np.isin(p.slide, ["slide 4", "slide 7"])
    return replace(p, label=np.where(odd, 1 - p.label, p.label))


def change_time(p: Predictions) -> Predictions:
    assert p.time is not None
    return replace(p, time=np.where(p.patient == "P5", p.time + 1, p.time))


def change_event(p: Predictions) -> Predictions:
    assert p.event is not None
    return replace(p, event=p.event ^ (p.patient == "P5"))


Change = Callable[[Predictions], Predictions]


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        (simulate(), change_label, r"a different label for 2 of 160 slides \(slide 4, slide 7\)"),
        (
            simulate(),
            lambda p: replace(p, patient=np.where(p.slide == "slide 4", "Q", p.patient)),
            r"a different patient for 1 of 160 slides \(slide 4\)",
        ),
        (simulate("survival"), change_time, r"a different time for 1 of 120 patients \(P5\)"),
        (simulate("survival"), change_event, r"a different event for 1 of 120 patients \(P5\)"),
        (
            simulate(),
            lambda p: replace(p, slide=np.char.add("x", p.slide)),
            r"no slide was tested by all models \(160 in a, 160 in b\)",
        ),
        (simulate(), lambda _: simulate("survival"), "a predicts classes and b survival"),
        (
            simulate(),
            lambda p: replace(p, classes=("benign", "carcinoma")),
            "the classes are benign, tumour in a and benign, carcinoma in b",
        ),
        (
            simulate(),
            lambda p: replace(p, classes=("tumour", "benign")),
            r"another order in b \(tumour, benign\) than in a \(benign, tumour\)",
        ),
        (
            simulate(),
            lambda p: p.take(np.flatnonzero(p.part == "validation")),
            "b has no prediction of the test part",
        ),
    ],
)
def test_models_that_do_not_match_are_refused(
    base: Predictions, change: Change, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as error:
        match_models({"a": base, "b": change(base)})
    assert error.value.code == "E_TABLE"
    assert error.value.mend


def test_numbers_written_with_fewer_digits_are_the_same_truth() -> None:
    p = simulate("number")
    assert p.label is not None
    exact = replace(p, label=p.label / 3)
    short = replace(p, label=np.round(p.label / 3, 8))
    assert len(match_models({"a": exact, "b": short}).baseline.table) == 160
    with pytest.raises(UsageError, match="a different label"):
        match_models({"a": exact, "b": replace(p, label=np.round(p.label / 3, 3))})


def test_without_slides_patients_are_matched_and_their_truths_must_agree() -> None:
    p = simulate(validation=False)
    lines = np.array([f"{name} (line {at})" for at, name in enumerate(p.patient, start=2)])
    bare = replace(shuffle(p), slide=lines[np.random.default_rng(3).permutation(len(p))])
    matched = match_models({"a": p, "b": bare})
    assert matched.unit == "patient"
    mean = only_test(p).groupby("patient")["score"].mean()
    for model in matched.models:
        assert model.table.score[:, 1] == pytest.approx(mean[model.table.slide].to_numpy())
        assert (model.tested, model.repeated) == (120, 40)
    assert p.label is not None
    odd = replace(p, label=np.where(p.slide == "slide 120", 1 - p.label, p.label))  # P0's second
    with pytest.raises(UsageError, match="patient P0 has slides of different truths in a"):
        match_models({"a": odd, "b": bare})


def test_one_model_is_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="nothing to compare: 1 model"):
        match_models({"a": simulate()})
