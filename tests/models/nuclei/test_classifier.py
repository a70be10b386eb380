"""A classifier learns what labelled nuclei have in common, explains it, and survives a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.nuclei import measuring as names
from slidetriage.models.nuclei.classifier import (
    NucleusClassifier,
    fit_classifier,
    read_classifier,
    write_classifier,
)

KINDS = ("Tumour", "Lymphocyte", "Normal")


def labelled(count: int = 120, seed: int = 0) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Large pale tumour nuclei, small dark lymphocytes, and normal ones between."""
    rng = np.random.default_rng(seed)
    area = np.concatenate([rng.lognormal(np.log(m), 0.15, count) for m in (90, 30, 45)])
    dark = np.concatenate([rng.normal(m, 0.05, count) for m in (0.4, 0.75, 0.45)])
    columns = {
        names.AREA: area,
        names.HAEMATOXYLIN: dark,
        names.EOSIN: rng.normal(0.1, 0.02, 3 * count),
        names.SOLIDITY: np.full(3 * count, 0.97),
    }
    plain = {name: column.astype(np.float32) for name, column in columns.items()}
    return plain, [kind for kind in KINDS for _ in range(count)]


@pytest.fixture(scope="module")
def fitted() -> NucleusClassifier:
    columns, labels = labelled()
    return fit_classifier(columns, labels, {"Tumour"})


def test_other_nuclei_are_told_apart(fitted: NucleusClassifier) -> None:
    columns, labels = labelled(seed=1)
    found = fitted.assess(columns)
    named = np.array(found.class_names)[found.classes]
    assert (named == labels).mean() > 0.95
    truth = np.array(labels) == "Tumour"
    assert (found.flagged == truth).mean() > 0.97
    assert found.class_names == ("Lymphocyte", "Normal", "Tumour")
    assert ((found.class_names.index("Tumour") == found.classes) == found.flagged).all()
    assert ((found.abnormality >= 0) & (found.abnormality <= 1)).all()


def test_reasons_are_the_measurements_that_spoke_for_it(fitted: NucleusClassifier) -> None:
    columns, labels = labelled(seed=2)
    found = fitted.assess(columns)
    tumour = np.array(labels) == "Tumour"
    first = np.array(found.reason_names)[found.reasons[tumour, 0]]
    assert (first == f"{names.AREA} high").mean() > 0.9
    assert names.SOLIDITY not in fitted.features  # it never varied


def test_two_classes_are_enough() -> None:
    columns, labels = labelled()
    two = ["Abnormal" if label == "Tumour" else "Other" for label in labels]
    found = fit_classifier(columns, two, ["Abnormal"]).assess(columns)
    assert found.class_names == ("Other", "Abnormal")
    assert (found.flagged == (np.array(two) == "Abnormal")).mean() > 0.97


def test_a_rare_class_counts_like_the_others() -> None:
    columns, labels = labelled(400)
    keep = np.r_[0:12, 400:1200]
    few = {name: column[keep] for name, column in columns.items()}
    found = fit_classifier(few, [labels[i] for i in keep], {"Tumour"}).assess(few)
    assert found.flagged[:12].all()


def test_it_survives_a_file(fitted: NucleusClassifier, tmp_path: Path) -> None:
    path = tmp_path / "classifier.json"
    write_classifier(fitted, path)
    again = read_classifier(path)
    assert again == fitted
    columns, _ = labelled(seed=3)
    assert np.array_equal(again.assess(columns).abnormality, fitted.assess(columns).abnormality)


def test_only_what_was_asked_for_is_used() -> None:
    columns, labels = labelled()
    found = fit_classifier(columns, labels, {"Tumour"}, features=[names.AREA])
    assert found.features == (names.AREA,)
    assert (found.assess(columns).reasons[:, 1:] == -1).all()


def test_unmeasured_values_are_left_out(fitted: NucleusClassifier) -> None:
    columns, labels = labelled()
    columns[names.EOSIN][::3] = np.nan
    refitted = fit_classifier(columns, labels, {"Tumour"})
    assert np.isfinite(refitted.assess(columns).abnormality).all()
    nothing = {name: np.full(4, np.nan, np.float32) for name in columns}
    found = fitted.assess(nothing)
    assert np.isnan(found.abnormality).all()
    assert not found.flagged.any()
    assert (found.reasons == -1).all()


@pytest.mark.parametrize("count", [0, 1, 70_000])
def test_any_number_of_nuclei(fitted: NucleusClassifier, count: int) -> None:
    columns, _ = labelled(1)
    many = {name: np.resize(column, count) for name, column in columns.items()}
    found = fitted.assess(many)
    assert len(found) == count
    assert np.array_equal(found.flagged, np.resize(fitted.assess(columns).flagged, count))


@pytest.mark.parametrize(
    ("labels", "abnormal", "message"),
    [
        (["A"] * 20, {"A"}, "abnormal"),
        (["A"] * 10 + ["B"] * 10, set(), "abnormal"),
        (["A"] * 10 + ["B"] * 10, {"A", "B"}, "abnormal"),
        (["A"] * 10 + ["B"] * 10, {"C"}, "No nucleus"),
        (["A"] * 11 + ["B"] * 9, {"B"}, "'B' has 9"),
        (["A"] * 10 + ["B"] * 11, {"B"}, "21 labels"),
        ([], set(), "abnormal"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    labels: list[str], abnormal: set[str], message: str
) -> None:
    columns = {names.AREA: np.arange(20, dtype=np.float32)}
    with pytest.raises(UsageError, match=message):
        fit_classifier(columns, labels, abnormal)


def test_measurements_that_are_missing_or_constant_are_refused(fitted: NucleusClassifier) -> None:
    labels = ["A"] * 10 + ["B"] * 10
    with pytest.raises(UsageError, match="differs"):
        fit_classifier({names.AREA: np.ones(20, np.float32)}, labels, {"A"})
    with pytest.raises(UsageError, match="no measurement"):
        fit_classifier({names.AREA: np.ones(20, np.float32)}, labels, {"A"}, features=["x"])
    with pytest.raises(ModelError, match="not measured"):
        fitted.assess({names.AREA: np.ones(20, np.float32)})


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [[0.0]]},
        {"scale": [1.0, 0.0, 1.0]},
        {"abnormal": []},
        {"abnormal": [0, 1, 2]},
        {"abnormal": [7]},
        {"bias": [1.0, 2.0]},
        {"extra": 1},
        {"threshold": "half"},
    ],
)
def test_a_damaged_file_is_refused(
    fitted: NucleusClassifier, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "classifier.json"
    path.write_text(json.dumps({**fitted.to_json(), **change}))
    with pytest.raises(ModelError):
        read_classifier(path)


@pytest.mark.parametrize("text", ["", "[", "[1]", "null", "\x80\x02c__main__\nX\n.", "[" * 100_000])
def test_what_is_not_a_classifier_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "classifier.json"
    path.write_text(text)
    with pytest.raises(ModelError):
        read_classifier(path)


def test_a_file_that_is_absent_or_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_classifier(tmp_path / "none.json")
    path = tmp_path / "huge.json"
    path.write_text(" " * (2**20 + 1))
    with pytest.raises(ModelError, match="too large"):
        read_classifier(path)
