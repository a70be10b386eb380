"""The report's numbers against the evaluation's own functions, and by hand on tiny tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from simulated_predictions import simulate
from slidetriage.errors import UsageError
from slidetriage.models.evaluation import (
    auc,
    average_precision,
    brier_score,
    calibration_error,
    class_confusion,
    coverage,
    decision_curve,
    fit_conformal,
    fit_cox,
    fit_platt,
    fit_temperature,
    harrell_concordance,
    log_rank,
    multiclass_auc,
    regression_figures,
    threshold_at_sensitivity,
)
from slidetriage.workflows.research import report_shares
from slidetriage.workflows.research.cohort import Column
from slidetriage.workflows.research.predictions import Predictions, average_seeds
from slidetriage.workflows.research.report_figures import measure_report
from slidetriage.workflows.research.report_values import BinaryFigures, ReportFigures

REPEATS = 40


def measure(p: Predictions) -> ReportFigures:
    return measure_report(p, title="t", repeats=REPEATS)


@pytest.fixture(scope="module")
def table() -> Predictions:
    return simulate()


@pytest.fixture(scope="module")
def report(table: Predictions) -> ReportFigures:
    return measure(table)


@pytest.fixture(scope="module")
def binary(report: ReportFigures) -> BinaryFigures:
    assert report.binary is not None
    return report.binary


def rows_tested(p: Predictions) -> np.ndarray:
    return np.flatnonzero(p.part == "test")


def labels(p: Predictions) -> np.ndarray:
    assert p.label is not None
    return p.label


def test_discrimination_is_that_of_all_test_rows(table: Predictions, binary: BinaryFigures) -> None:
    rows = rows_tested(table)
    y, s = labels(table)[rows], table.score[rows, 1]
    assert binary.auc.value == auc(y, s)
    assert binary.auc.low < binary.auc.value < binary.auc.high
    assert binary.average_precision.value == average_precision(y, s)
    assert binary.prevalence == y.mean()
    for each in binary.fold_auc:
        own = table.rows(each.fold, "test")
        assert each.value == auc(labels(table)[own], table.score[own, 1])


def test_thresholds_come_from_the_validation_part_of_the_same_fold(
    table: Predictions, binary: BinaryFigures
) -> None:
    for point, asked in zip(binary.points, (0.99, 0.95), strict=True):
        called = []
        for name, found in zip(table.folds, point.thresholds, strict=True):
            held, own = table.rows(name, "validation"), table.rows(name, "test")
            wanted = threshold_at_sensitivity(labels(table)[held], table.score[held, 1], asked)
            assert found.value == wanted
            called.append(np.stack([labels(table)[own], table.score[own, 1] >= wanted]))
        y, c = np.concatenate(called, axis=1).astype(bool)
        assert point.true_positive == (y & c).sum()
        assert point.false_negative == (y & ~c).sum()
        assert point.false_positive == (~y & c).sum()
        assert point.true_negative == (~y & ~c).sum()
        assert point.sensitivity is not None
        assert point.sensitivity.value == pytest.approx(c[y].mean())
        assert point.spared is not None
        assert point.spared.value == pytest.approx((~c).mean())
        assert not point.optimistic


def test_calibration_is_fitted_on_validation_and_measured_on_test(
    table: Predictions, binary: BinaryFigures
) -> None:
    maps = {"temperature": fit_temperature, "Platt": fit_platt}
    rows = rows_tested(table)
    y = labels(table)[rows]
    wanted = {"as given": table.score[rows, 1]}
    for name, fit in maps.items():
        p = np.zeros(len(table))
        for fold in table.folds:
            held, own = table.rows(fold, "validation"), table.rows(fold, "test")
            rule = fit(labels(table)[held], table.score[held, 1])
            p[own] = rule.apply(table.score[own, 1])
        wanted[name] = p[rows]
    assert [each.name for each in binary.calibrations] == list(wanted)
    for each in binary.calibrations:
        assert each.ece == pytest.approx(calibration_error(y, wanted[each.name]).value)
        assert each.brier is not None
        assert each.brier.value == pytest.approx(brier_score(y, wanted[each.name]))
    # The scores are shifted, which a temperature cannot mend.
    assert binary.chosen == "Platt"
    assert binary.calibration.ece < binary.calibrations[0].ece
    assert binary.decision.y == pytest.approx(decision_curve(y, wanted["Platt"]).model)


def test_conformal_rules_are_fitted_on_one_row_of_each_validation_patient(
    table: Predictions, binary: BinaryFigures
) -> None:
    sets = np.zeros((len(table), 2), bool)
    for fold in table.folds:
        held, own = table.rows(fold, "validation"), table.rows(fold, "test")
        _, first = np.unique(table.patient[held], return_index=True)
        one = held[np.sort(first)]
        rule = fit_conformal(labels(table)[one], table.score[one], error_rate=0.05)
        sets[own] = rule.sets(table.score[own])
    rows = rows_tested(table)
    wanted = coverage(labels(table)[rows], sets[rows])
    found = binary.conformal[0]
    assert found.coverage is not None
    assert found.needs_eyes is not None
    assert found.coverage.value == pytest.approx(wanted.overall)
    assert found.needs_eyes.value == pytest.approx(wanted.abstained_share)
    assert found.by_class == pytest.approx(wanted.by_class)


def test_groups_are_sites_bands_of_age_and_categories(
    table: Predictions, report: ReportFigures
) -> None:
    figure = next(t for t in report.groups if t.figure == "AUC")
    assert [(r.column, r.group) for r in figure.rows] == [
        ("site", "0"), ("site", "1"), ("site", "2"),
        ("age", "under 50"), ("age", "50-64"), ("age", "65 and over"),
        ("sex", "f"), ("sex", "m"),
    ]  # fmt: skip
    rows = rows_tested(table)
    age = np.asarray(table.subgroups[0].values, float)[rows]
    band = rows[(age >= 50) & (age < 65)]
    found = next(r for r in figure.rows if r.group == "50-64")
    assert found.figure is not None
    assert found.figure.value == auc(labels(table)[band], table.score[band, 1])
    assert found.patients == len(set(table.patient[band]))
    names = [t.figure for t in report.groups]
    assert names == [
        "AUC", "average precision", "sensitivity at 99%", "specificity at 99%",
        "sensitivity at 95%", "specificity at 95%", "Brier score", "ECE",
    ]  # fmt: skip


def test_a_group_without_a_miss_is_not_taken_for_certain(report: ReportFigures) -> None:
    figure = next(t for t in report.groups if t.figure == "sensitivity at 99%")
    sure = [row for row in figure.rows if row.figure is not None and row.figure.value == 1]
    assert sure
    for row in sure:
        assert row.figure is not None
        # Wilson's of n in n.
        assert row.figure.low == pytest.approx(row.positives / (row.positives + 1.959964**2))


def test_a_group_that_does_worse_is_named_among_the_limits() -> None:
    p = simulate(patients=400)
    bad = (p.site == "1") & (p.part == "test")
    score = p.score.copy()
    score[bad] = score[bad][::-1].copy()  # of other slides
    report = measure(replace(p, score=score))
    assert any(s.startswith("The AUC is worse than in the rest for site 1") for s in report.limits)


def test_small_groups_are_said_to_be_small() -> None:
    p = simulate()
    site = np.where(np.isin(p.patient, ["P0", "P1", "P2"]), "tiny", "large")
    report = measure(replace(p, site=site))
    assert "1 group of site is too small to say anything of." in report.limits
    warnings = {r.group: r.warning for r in report.groups[0].rows if r.column == "site"}
    # What is left beside the large one is no measure for it.
    assert warnings == {"large": "", "tiny": "too small to say"}


def test_without_validation_thresholds_are_flagged_and_scores_stand_as_given() -> None:
    report = measure(simulate(validation=False))
    assert report.binary is not None
    assert all(point.optimistic for point in report.binary.points)
    sensitivity = report.binary.points[1].sensitivity
    assert sensitivity is not None
    assert sensitivity.value >= 0.95  # by construction
    assert report.binary.chosen == "as given"
    assert [c.name for c in report.binary.calibrations] == ["as given"]
    assert report.binary.conformal == ()
    said = " ".join(report.limits)
    assert "optimistic" in said
    assert "nothing is said of abstention" in said
    assert "No temperature could be fitted in fold 0, fold 1" in said
    assert not report.data.validation


def test_a_tiny_table_by_hand() -> None:
    p = Predictions(
        kind="classes", classes=("no", "yes"),
        slide=np.array(list("abcd")), patient=np.array(list("ABCD")),
        fold=np.array(["all"] * 4), seed=np.zeros(4, np.int64), part=np.array(["test"] * 4),
        score=np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
        label=np.array([0.0, 0.0, 1.0, 1.0]),
    )  # fmt: skip
    report = measure(p)
    found = report.binary
    assert found is not None
    assert found.auc.value == 0.75  # 3 of 4 pairs
    point = found.points[0]
    assert [t.value for t in point.thresholds] == [0.35]
    counts = (
        point.true_positive, point.false_positive, point.true_negative, point.false_negative,
    )  # fmt: skip
    assert counts == (2, 1, 1, 0)
    assert point.ppv is not None
    assert point.ppv.value == pytest.approx(2 / 3)
    assert point.sensitivity is not None
    # Wilson's of 2 in 2: a bootstrap would have said 1 to 1.
    assert point.sensitivity.low == pytest.approx(2 / (2 + 1.959964**2), rel=1e-5)
    assert found.calibrations[0].brier is not None
    assert found.calibrations[0].brier.value == pytest.approx(
        (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4
    )
    assert "Only 4 patients were tested: the intervals are wide." in report.limits


def test_tissue_areas_give_the_share_of_area_that_is_ruled_out(table: Predictions) -> None:
    area = np.linspace(1, 9, len(table))
    p = replace(table, subgroups=(Column("tissue_mm2", "number", area),))
    report = measure(p)
    assert report.binary is not None
    point = report.binary.points[1]
    spared = whole = 0.0
    for found in point.thresholds:
        own = p.rows(found.fold, "test")
        spared += area[own][p.score[own, 1] < found.value].sum()
        whole += area[own].sum()
    assert point.area_spared == pytest.approx(spared / whole)
    assert {row.column for row in report.groups[0].rows} == {"site"}


def test_seeds_are_averaged_before_anything_is_measured() -> None:
    p = simulate(seeds=3)
    report = measure(p)
    mean = average_seeds(p)
    rows = rows_tested(mean)
    assert report.binary is not None
    assert report.binary.auc.value == auc(labels(mean)[rows], mean.score[rows, 1])
    assert report.data.seeds == 3
    assert report.data.rows == len(rows) == len(rows_tested(p)) / 3


def test_excluded_rows_are_counted_by_reason(report: ReportFigures) -> None:
    assert report.data.excluded == (("has no 'label'", 2), ("has no features", 1))
    assert "3 rows of the table were left out; the reasons are listed below." in report.limits


def test_several_classes() -> None:
    p = simulate(classes=("a", "b", "c"))
    report = measure(p)
    found = report.multiclass
    assert found is not None
    rows = rows_tested(p)
    y, s = labels(p)[rows], p.score[rows]
    assert found.macro_auc is not None
    assert found.macro_auc.value == pytest.approx(multiclass_auc(y, s))
    assert np.array(found.confusion).tolist() == class_confusion(y, s).tolist()
    one = found.classes[1]
    assert one.auc is not None
    assert one.auc.value == auc(y == 1, s[:, 1])
    assert one.recall == pytest.approx((s[y == 1].argmax(1) == 1).mean())
    assert found.ece_before == pytest.approx(calibration_error(s.argmax(1) == y, s.max(1)).value)
    assert found.ece_after < found.ece_before
    assert [t.figure for t in report.groups] == ["AUC of a", "AUC of b", "AUC of c"]


def test_a_number() -> None:
    p = simulate("number")
    report = measure(p)
    rows = rows_tested(p)
    wanted = regression_figures(labels(p)[rows], p.score[rows, 0])
    assert report.number is not None
    for name in ("mean_absolute_error", "root_mean_squared_error", "r2", "pearson", "spearman"):
        assert getattr(report.number, name).value == pytest.approx(getattr(wanted, name))
    assert [t.figure for t in report.groups] == ["mean absolute error"]
    assert not report.groups[0].higher_is_better


def test_survival_is_compared_within_folds_and_with_a_cox_model() -> None:
    p = simulate("survival")
    report = measure(p)
    found = report.survival
    assert found is not None
    assert p.time is not None
    assert p.event is not None
    age = np.asarray(p.subgroups[0].values, float)
    harrell, alone, member = [], [], np.full(len(p), "", object)
    for fold in p.folds:
        own, held = p.rows(fold, "test"), p.rows(fold, "validation")
        harrell.append(harrell_concordance(p.time[own], p.event[own], p.score[own, 0]).value)
        # Here all who are not tested in a fold are its validation part.
        fit = fit_cox(p.time[held], p.event[held], age[held])
        alone.append(harrell_concordance(p.time[own], p.event[own], fit.risk(age[own])).value)
        high = p.score[own, 0] > np.median(p.score[held, 0])
        member[own] = np.where(high, "higher risk", "lower risk")
    assert found.concordance is not None
    assert found.concordance.value == pytest.approx(np.mean(harrell))
    assert [f.value for f in found.folds] == pytest.approx(harrell)
    rows = rows_tested(p)
    wanted = log_rank(p.time[rows], p.event[rows], member[rows])
    assert found.log_rank is not None
    assert found.log_rank.chi2 == pytest.approx(wanted.chi2)
    assert [g.name for g in found.groups] == ["lower risk", "higher risk"]
    assert sum(g.patients for g in found.groups) == 120
    assert found.comparisons[0].column == "age"
    assert found.comparisons[0].concordance == pytest.approx(np.mean(alone))
    assert found.comparisons[0].risk_alone is not None
    assert found.comparisons[0].risk_alone.hazard_ratio > 1  # the risk means something
    assert not found.optimistic


def test_survival_without_validation_or_columns_says_what_it_cannot() -> None:
    p = replace(simulate("survival", patients=40, validation=False), subgroups=(), site=None)
    said = " ".join(measure(p).limits)
    assert "Too few events to say much" in said
    assert "its groups of risk are parted by the median of the patients they are made of" in said
    assert "No column of numbers, such as age" in said
    assert "The table names no sites" in said


@pytest.mark.parametrize("kind", ["binary", "classes", "number", "survival"])
def test_the_figures_go_to_json_and_back(kind: str) -> None:
    if kind == "binary":
        p = simulate(patients=30)
    elif kind == "classes":
        p = simulate(classes=("a", "b", "c"), patients=60)
    else:
        p = simulate(kind, patients=30)  # type: ignore[arg-type]  # one of the two left
    figures = measure(p)
    text = json.dumps(figures.to_json(), allow_nan=False)
    back = ReportFigures.from_json(json.loads(text))
    assert json.dumps(back.to_json()) == text
    assert back.kind == figures.kind
    assert back.groups[0].rows[0].figure == figures.groups[0].rows[0].figure


@pytest.mark.parametrize(
    "damage", [{"said": 3}, {"title": None}, {"data": {"slides": 1}}, {"x": 1}]
)
def test_other_json_is_refused(damage: dict[str, object], report: ReportFigures) -> None:
    with pytest.raises(UsageError, match="no validation report"):
        ReportFigures.from_json(report.to_json() | damage)


def test_what_cannot_be_measured_is_refused(table: Predictions) -> None:
    with pytest.raises(UsageError, match="No prediction is of the test part"):
        measure(
            replace(table, part=np.full(len(table), "validation")).take(
                table.rows("fold 0", "test")
            )
        )
    one = table.take(rows_tested(table)[labels(table)[rows_tested(table)] == 1])
    with pytest.raises(UsageError, match="tested rows have the label tumour"):
        measure(one)
    survival = simulate("survival", validation=False)
    with pytest.raises(UsageError, match="has an event"):
        measure(replace(survival, event=np.zeros(len(survival), bool)))


def test_intervals_resample_patients_not_slides(table: Predictions) -> None:
    """Every slide twice tells nothing new: the interval must not shrink."""
    again = replace(table, slide=np.array([f"{s} again" for s in table.slide]))
    both = Predictions(
        "classes", table.classes,
        *(np.concatenate([getattr(table, n), getattr(again, n)])
          for n in ("slide", "patient", "fold", "seed", "part", "score", "label")),
    )  # fmt: skip
    widths = []
    for p in (table, both):
        rows = report_shares.Tested.of(average_seeds(p), repeats=300, seed=0)
        y, s = rows.truth == 1, rows.score[:, 1]
        found = rows.interval(lambda r, y=y, s=s: auc(y[r], s[r]))  # type: ignore[misc]  # bound per loop
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
