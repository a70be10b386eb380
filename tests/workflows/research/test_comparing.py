"""The comparison's numbers against independent ones, and its page as a file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn import metrics

from simulated_predictions import simulate
from slidetriage.errors import OutputError, UsageError
from slidetriage.models.evaluation import PatientBootstrap, auc, harrell_concordance
from slidetriage.models.evaluation.comparison import delong_test
from slidetriage.workflows.research.cohort import Column
from slidetriage.workflows.research.compare_matching import match_models
from slidetriage.workflows.research.compare_values import ComparisonFigures, PairFigures
from slidetriage.workflows.research.comparing import compare, measure_comparison
from slidetriage.workflows.research.predictions import Predictions
from slidetriage.workflows.research.report_figures import measure_report
from slidetriage.workflows.settings import RESEARCH_USE

REPEATS = 60
KINDS: Mapping[str, Predictions] = {
    "binary": simulate(),
    "classes": simulate(classes=("a", "b", "c")),
    "number": simulate("number"),
    "survival": simulate("survival"),
}
MAIN = {
    "binary": "AUC", "classes": "mean AUC", "number": "mean absolute error",
    "survival": "concordance",
}  # fmt: skip


def blur(p: Predictions, amount: float, seed: int = 1) -> Predictions:
    """The same rows by a model that knows less."""
    noise = np.random.default_rng(seed).normal(0, amount, p.score.shape)
    if p.kind != "classes":
        return replace(p, score=p.score + noise)
    score = expit(logit(p.score) + noise)
    return replace(p, score=score / score.sum(axis=1, keepdims=True))


def one_slide_each(p: Predictions) -> Predictions:
    return p.take(np.flatnonzero([int(name.split()[1]) < 120 for name in p.slide]))


def measure(*models: Predictions, repeats: int = REPEATS) -> ComparisonFigures:
    named = dict(zip("abcdef", models, strict=False))
    return measure_comparison(named, title="t", repeats=repeats)


def differences(pair: PairFigures) -> dict[str, float]:
    return {each.name: each.difference.value for each in pair.differences}


@pytest.fixture(scope="module")
def pair() -> ComparisonFigures:
    return measure(KINDS["binary"], blur(KINDS["binary"], 3.0))


def test_differences_are_those_of_scikit_learn(pair: ComparisonFigures) -> None:
    a, b = match_models({"a": KINDS["binary"], "b": blur(KINDS["binary"], 3.0)}).models
    wanted: dict[str, float] = {}
    for sign, model in ((-1, a), (1, b)):
        y, p = np.asarray(model.table.label), model.table.score[:, 1]
        own = {
            "AUC": metrics.roc_auc_score(y, p),
            "average precision": metrics.average_precision_score(y, p),
            "Brier score": metrics.brier_score_loss(y, p),
        }
        for asked, called in model.called.items():
            own[f"sensitivity at {asked}"] = metrics.recall_score(y, called)
            own[f"specificity at {asked}"] = metrics.recall_score(1 - y, ~called)
        for name, value in own.items():
            wanted[name] = wanted.get(name, 0.0) + sign * value
    assert differences(pair.pairs[0]) == pytest.approx(wanted)


def test_the_interval_is_that_of_paired_resamples_of_patients(pair: ComparisonFigures) -> None:
    a, b = match_models({"a": KINDS["binary"], "b": blur(KINDS["binary"], 3.0)}).models
    y = np.asarray(a.table.label)
    drawn = [
        auc(y[rows], b.table.score[rows, 1]) - auc(y[rows], a.table.score[rows, 1])
        for rows in PatientBootstrap(
            a.table.patient, strata=y, repeats=REPEATS, seed=0
        ).draws()
    ]  # fmt: skip
    found = pair.pairs[0].differences[0]
    assert found.name == "AUC"
    assert [found.difference.low, found.difference.high] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975])
    )
    on_the_other_side = min(np.sum(np.array(drawn) <= 0), np.sum(np.array(drawn) >= 0))
    assert found.p == pytest.approx(2 * (1 + on_the_other_side) / (REPEATS + 1))


def test_figures_of_each_model_are_those_of_its_report() -> None:
    """Where every slide is tested once by all, nothing but the resamples' order may differ."""
    a, b = KINDS["binary"], blur(KINDS["binary"], 3.0)
    for model, p in zip(measure(a, b).models, (a, b), strict=True):
        report = measure_report(p, title="t", repeats=REPEATS).binary
        assert report is not None
        found = {each.name: each.value for each in model.figures}
        wanted = {
            "AUC": report.auc, "average precision": report.average_precision,
            "Brier score": report.calibrations[0].brier,
        }  # fmt: skip
        for point in report.points:
            wanted[f"sensitivity at {point.asked:.0%}"] = point.sensitivity
            wanted[f"specificity at {point.asked:.0%}"] = point.specificity
        assert found.keys() == wanted.keys()
        for name, interval in wanted.items():
            here = found[name]
            assert interval is not None
            assert here is not None
            assert here.value == pytest.approx(interval.value)


def test_tests_by_row_are_made_where_each_patient_has_one() -> None:
    p = one_slide_each(KINDS["binary"])
    models = {"a": p, "b": blur(p, 2.0)}
    pair = measure(*models.values()).pairs[0]
    a, b = match_models(models).models
    y = np.asarray(a.table.label)
    wanted = delong_test(y, a.table.score[:, 1], b.table.score[:, 1], a.table.patient)
    assert pair.delong == wanted
    assert pair.delong_adjusted == wanted.p
    assert [test.threshold for test in pair.calls] == ["99%", "95%"]
    for test in pair.calls:
        right = [model.called[test.threshold] == (y == 1) for model in (a, b)]
        only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
        assert [test.only_baseline, test.only_other] == only
        assert test.p == pytest.approx(binomtest(only[0], sum(only)).pvalue if sum(only) else 1)


def test_tests_by_row_are_left_out_where_a_patient_has_several(pair: ComparisonFigures) -> None:
    assert pair.pairs[0].delong is None
    assert pair.pairs[0].calls == ()
    assert any("DeLong's and McNemar's" in words for words in pair.limits)


def test_several_classes_have_mcnemar_of_the_likeliest() -> None:
    p = one_slide_each(KINDS["classes"])
    models = {"a": p, "b": blur(p, 4.0)}
    found = measure(*models.values()).pairs[0]
    a, b = match_models(models).models
    right = [model.table.score.argmax(axis=1) == model.table.label for model in (a, b)]
    (test,) = found.calls
    assert test.threshold == "likeliest class"
    assert test.only_baseline == (right[0] & ~right[1]).sum()
    assert test.only_other == (right[1] & ~right[0]).sum()
    assert found.delong is None
    wanted = metrics.balanced_accuracy_score(b.table.label, b.table.score.argmax(axis=1))
    assert {each.name: each.other for each in found.differences}[
        "balanced accuracy"
    ] == pytest.approx(wanted)


def test_survival_is_compared_within_each_models_own_folds() -> None:
    p = KINDS["survival"]
    whole = p.take(np.flatnonzero(p.part == "test"))
    whole = replace(whole, fold=np.full(len(whole), "all"))
    found = measure(p, blur(whole, 1.0)).pairs[0].differences[0]
    assert found.name == "concordance"
    folds = [p.rows(fold, "test") for fold in p.folds]
    assert p.time is not None
    assert p.event is not None
    within = [harrell_concordance(p.time[r], p.event[r], p.score[r, 0]).value for r in folds]
    assert found.baseline == pytest.approx(np.mean(within))
    other = blur(whole, 1.0)
    assert other.time is not None
    assert other.event is not None
    wanted = harrell_concordance(other.time, other.event, other.score[:, 0]).value
    assert found.other == pytest.approx(wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_cannot_be_told_from_itself(kind: str) -> None:
    p = KINDS[kind]
    figures = measure(p, p)
    for found in figures.pairs[0].differences:
        interval = found.difference
        assert (interval.value, interval.low, interval.high, found.p) == (0, 0, 0, 1)
        assert not found.told_apart
        assert "cannot be told apart" in found.said
    assert figures.pairs[0].differences[0].name == MAIN[kind]


def test_the_other_way_round_all_signs_turn() -> None:
    a, b = KINDS["binary"], blur(KINDS["binary"], 3.0)
    here, there = measure(a, b).pairs[0], measure(b, a).pairs[0]
    for first, second in zip(here.differences, there.differences, strict=True):
        assert second.difference.value == -first.difference.value
        assert second.difference.low == pytest.approx(-first.difference.high)
        assert second.p == first.p
        assert second.told_apart is first.told_apart


def test_words_say_which_is_higher_and_by_how_much() -> None:
    p = KINDS["binary"]
    worse = measure(p, blur(p, 6.0), repeats=200).pairs[0].differences[0]
    better = measure(blur(p, 6.0), p, repeats=200).pairs[0].differences[0]
    low, high = better.difference.low, better.difference.high
    size = f"{better.difference.value:.3f}"
    ends = f"(95 % interval {low:.3f} to {high:.3f})"
    assert low > 0
    assert better.said == f"b's AUC is {size} higher than a's {ends}."
    assert worse.said == f"b's AUC is {size} lower than a's {ends}."
    alike = measure(p, blur(p, 0.05)).pairs[0].differences[0]
    assert alike.said.startswith("a and b cannot be told apart by AUC: b's minus a's is ")


def test_shares_are_told_in_points(pair: ComparisonFigures) -> None:
    for found in pair.pairs[0].differences:
        assert ("points" in found.said) is found.name.startswith(("sensitivity", "specificity"))


def test_p_values_of_several_comparisons_are_holms() -> None:
    p = KINDS["binary"]
    figures = measure(p, blur(p, 1.0), blur(p, 2.0, 5), blur(p, 6.0, 6), repeats=100)
    assert [(pair.baseline, pair.other) for pair in figures.pairs] == [
        ("a", "b"), ("a", "c"), ("a", "d"),
    ]  # fmt: skip
    for at in range(len(figures.pairs[0].differences)):
        found = [pair.differences[at] for pair in figures.pairs]
        ordered, before = sorted(found, key=lambda each: each.p), 0.0
        for step, each in enumerate(ordered):
            before = max(before, min(1.0, each.p * (3 - step)))
            assert each.p_adjusted == pytest.approx(before)
            assert "adjusted for 3 comparisons" in each.said
            low, high = each.difference.low, each.difference.high
            assert each.told_apart is (each.p_adjusted < 0.05 and (low > 0 or high < 0))
    assert any("adjusted by Holm" in words for words in figures.limits)
    assert figures.said == tuple(pair.differences[0].said for pair in figures.pairs)


def test_groups_that_are_large_enough_have_the_difference_in_them() -> None:
    p = replace(KINDS["binary"], subgroups=())
    assert p.site is not None
    few = np.isin(p.patient, [f"P{number}" for number in range(12)])
    p = replace(p, site=np.where(few, "few", p.site))
    models = {"a": p, "b": blur(p, 3.0)}
    (table,) = measure(*models.values()).pairs[0].groups
    assert table.figure == "AUC"
    a, b = match_models(models).models
    assert {row.group for row in table.rows} == {"0", "1", "2", "few"}
    assert a.table.site is not None
    for row in table.rows:
        own = a.table.site == row.group
        if row.group == "few":
            assert (row.patients, row.figure, row.warning) == (12, None, "too small to say")
            continue
        y = np.asarray(a.table.label)[own]
        areas = [metrics.roc_auc_score(y, model.table.score[own, 1]) for model in (a, b)]
        assert row.figure is not None
        assert row.figure.value == pytest.approx(areas[1] - areas[0])
        assert row.figure.low < row.figure.high
        assert row.warning == ""


def test_bands_of_age_stand_in_their_order() -> None:
    p = replace(simulate(patients=200), site=None)
    (table,) = measure(p, blur(p, 1.0)).pairs[0].groups
    ages = [row.group for row in table.rows if row.column == "age"]
    assert ages == ["under 50", "50-64", "65 and over"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_groups_and_a_whole_page(kind: str, tmp_path: Path) -> None:
    p = KINDS[kind]
    models = {"one": p, "two": blur(p, 1.0), "three": blur(p, 2.0, 4)}
    figures = compare(models, tmp_path, title="Heads", repeats=20)
    page = (tmp_path / "compare.html").read_text()
    root = parse(page)
    here = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert here == {"summary", "limits", "models", "differences", "groups", "methods"}
    text = " ".join("".join(root.itertext()).split())
    assert "nan" not in text.lower().split()
    for sentence in (*figures.said, *figures.limits, RESEARCH_USE, "Heads"):
        assert sentence in text
    for pair in figures.pairs:
        assert pair.groups
        for each in pair.differences:
            assert each.said in text
    assert not list(root.iter("script"))
    assert not list(root.iter("link"))
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r'src="[^"]*"', "", page))
    assert "max-width: 62rem" in page  # the report's styles
    assert {path.name for path in tmp_path.iterdir()} == {"compare.json", "compare.html"}
    drawn = pictures(root)
    groups = sum(any(row.figure for row in t.rows) for pair in figures.pairs for t in pair.groups)
    assert len(drawn) == groups + {"binary": 2, "classes": 1, "number": 2, "survival": 1}[kind]
    assert json.loads((tmp_path / "compare.json").read_text()) == figures.to_json()


def parse(page: str) -> ElementTree.Element:
    """As XML: every tag closed, every attribute quoted, nothing unescaped."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))


def pictures(root: ElementTree.Element) -> list[bytes]:
    found = []
    for image in root.iter("img"):
        head, _, body = image.attrib["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        assert image.attrib["alt"]
        found.append(base64.b64decode(body, validate=True))
    for svg in found:
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    return found


def test_hostile_names_are_text_and_no_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    p = simulate(classes=("no", f"{evil}&\"'"))
    values = np.where(p.site == "0", "{{ 7 * 7 }}", "b")
    p = replace(p, subgroups=(Column(f"{evil} $x_$", "category", values),))
    models = {f'"><img src=x onerror=alert(2)>{evil}': p, f"{{{{ 7 * 7 }}}} {evil}": blur(p, 1.0)}
    compare(models, tmp_path, title=evil, repeats=20)
    page = (tmp_path / "compare.html").read_text()
    root = parse(page)
    assert "<script" not in page
    assert not [name for e in root.iter() for name in e.attrib if name.startswith("on")]
    assert all(image.attrib["src"].startswith("data:") for image in root.iter("img"))
    text = "".join(root.itertext())
    assert text.count(evil) > 5
    assert "{{ 7 * 7 }}" in text
    for svg in pictures(root):
        assert b"<script" not in svg


def test_the_same_predictions_give_the_same_bytes(tmp_path: Path) -> None:
    p = KINDS["binary"]
    for name in ("one", "two"):
        compare({"a": p, "b": blur(p, 1.0)}, tmp_path / name, title="t", repeats=20)
    for name in ("compare.html", "compare.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_limits_say_what_is_left_out_and_what_differs() -> None:
    p = KINDS["binary"]
    fewer = blur(p.take(np.flatnonzero(p.patient != "P3")), 1.0)
    folds = replace(fewer, fold=np.char.replace(fewer.fold, "fold", "part"))
    told = " ".join(measure(p, folds).limits)
    assert "of the 160 slides tested by a are not tested by every model and are left out" in told
    assert "whether another model learned from them cannot be known" in told
    assert "is promised by whoever trained it" in told
    assert "not tested in the same folds" not in told  # the names of folds do not matter
    assert "Only 119 patients" not in told
    single = fewer.take(np.flatnonzero(fewer.part == "test"))
    single = replace(single, fold=np.full(len(single), "all"))
    seeds = simulate(seeds=2)
    told = " ".join(measure(seeds, single).limits)
    assert "b and a were not tested in the same folds" in told
    assert "means over different numbers of trainings" in told
    assert "b has no validation rows of both classes in every fold" in told
    few = simulate(patients=40)
    assert any("Only 40 patients are compared" in w for w in measure(few, blur(few, 1.0)).limits)


def test_what_cannot_be_measured_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    p = one_slide_each(KINDS["binary"]).take(np.arange(120))
    assert p.label is not None
    positives = p.take(np.flatnonzero(p.label == 1))
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="have one label") as error:
        compare({"a": positives, "b": blur(positives, 1.0)}, out, title="t")
    assert error.value.code == "E_TABLE"
    own = p.take(p.rows("fold 0", "test"))
    alone = own.take(np.flatnonzero(own.patient == own.patient[0]))
    with pytest.raises(UsageError, match="one tested patient in common"):
        compare({"a": alone, "b": alone}, out, title="t")
    s = KINDS["survival"]
    censored = replace(s, event=np.zeros(len(s), np.bool_))
    with pytest.raises(UsageError, match="have no event"):
        compare({"a": censored, "b": censored}, out, title="t")
    at_once = replace(s, time=np.ones(len(s)), event=np.ones(len(s), np.bool_))
    with pytest.raises(UsageError, match="there is no figure"):
        compare({"a": at_once, "b": at_once}, out, title="t", repeats=5)
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    p = simulate(patients=20)
    with pytest.raises(OutputError, match="folder cannot be made"):
        compare({"a": p, "b": p}, tmp_path / "file" / "out", title="t", repeats=5)
