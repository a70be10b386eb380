"""Predictions as a value and as CSV: round trips, tables of other tools, and what is refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import Split
from slidetriage.models.learning import Recipe
from slidetriage.workflows.research.cohort import Column, ExcludedRow, Target
from slidetriage.workflows.research.prediction_files import read_predictions, write_predictions
from slidetriage.workflows.research.predictions import (
    Predictions,
    average_seeds,
    from_outcomes,
)
from slidetriage.workflows.research.study import Method, Study
from slidetriage.workflows.research.tables import ColumnNames, read_cohort
from slidetriage.workflows.research.trainings import Outcome


def binary(**changes: object) -> Predictions:
    p = Predictions(
        kind="classes",
        classes=("no", "yes"),
        slide=np.array(["a", "b", "c", "d"]),
        patient=np.array(["A", "B", "C", "D"]),
        fold=np.array(["fold 0"] * 4),
        seed=np.zeros(4, np.int64),
        part=np.array(["validation", "validation", "test", "test"]),
        score=np.array([[0.9, 0.1], [0.25, 0.75], [1 / 3, 2 / 3], [0.5, 0.5]]),
        label=np.array([0.0, 1.0, 1.0, 0.0]),
    )
    return replace(p, **changes)  # type: ignore[arg-type]  # each test names its own field


def as_plain(p: Predictions) -> dict[str, object]:
    plain: dict[str, object] = {
        name: None if (values := getattr(p, name)) is None else np.asarray(values).tolist()
        for name in ("slide", "patient", "fold", "seed", "part", "score", "label", "time", "event")
    }
    plain["site"] = None if p.site is None else p.site.tolist()
    plain["columns"] = [(c.name, c.kind, list(map(str, c.values))) for c in p.subgroups]
    return plain | {"kind": p.kind, "classes": p.classes, "excluded": p.excluded}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_what_was_written_is_read_back_to_the_last_digit(tmp_path: Path) -> None:
    p = binary(
        score=np.array([[0.9, 0.1], [0.1 + 0.2, 0.7], [1 / 3, 2 / 3], [1 - 1e-17, 1e-17]]),
        site=np.array(["X", "", "Y", "X"]),
        subgroups=(
            Column("age", "number", np.array([50.5, np.nan, 70.0, 1e-3])),
            Column("sex", "category", np.array(["f", "m", "", "f"])),
        ),
        excluded=(ExcludedRow(7, "e", "E", "has no 'label'"),),
    )
    write_predictions(tmp_path / "p.csv", p)
    assert as_plain(read_predictions(tmp_path / "p.csv")) == as_plain(p)


def test_survival_and_numbers_are_read_back(tmp_path: Path) -> None:
    risk = np.array([[-1.5], [0.25], [2.0], [0.0]])
    p = binary(
        kind="survival", classes=(), label=None, score=risk,
        time=np.array([1.0, 2.5, 0.0, 9.0]), event=np.array([True, False, True, False]),
    )  # fmt: skip
    write_predictions(tmp_path / "s.csv", p)
    assert as_plain(read_predictions(tmp_path / "s.csv")) == as_plain(p)
    n = binary(kind="number", classes=(), score=risk, label=np.array([-3.0, 0.5, 2.0, 1.0]))
    write_predictions(tmp_path / "n.csv", n)
    assert as_plain(read_predictions(tmp_path / "n.csv")) == as_plain(n)


def test_no_cell_is_a_formula_and_hostile_names_come_back(tmp_path: Path) -> None:
    names = np.array(["=cmd|' /C calc'!A0", "+1", "@x", "'=y"])
    p = binary(
        slide=names, patient=names, classes=("-no", "=yes"), site=names,
        subgroups=(Column("=HYPERLINK()", "category", np.array(["-a", "'b", "c", "d,\n\"e"])),),
        excluded=(ExcludedRow(3, "=slide", "@patient", "-reason"),),
    )  # fmt: skip
    write_predictions(tmp_path / "p.csv", p)
    for name in ("p.csv", "excluded.csv"):
        with (tmp_path / name).open(newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert as_plain(read_predictions(tmp_path / "p.csv")) == as_plain(p)


def test_a_subgroup_may_not_take_the_name_of_another_column(tmp_path: Path) -> None:
    p = binary(subgroups=(Column("label", "category", np.array(["a", "b", "c", "d"])),))
    with pytest.raises(UsageError, match="'label', which means something else"):
        write_predictions(tmp_path / "p.csv", p)


def test_a_table_of_another_tool_needs_patient_label_and_score(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "patient,label,score\nA,1,0.9\nB,0,0.2\nB,0,0.3\n")
    p = read_predictions(path)
    assert p.classes == ("0", "1")
    assert p.score[:, 1].tolist() == [0.9, 0.2, 0.3]
    assert p.label is not None
    assert p.label.tolist() == [1, 0, 0]
    assert set(p.part) == {"test"}
    assert len(set(p.slide)) == 3
    turned = read_predictions(path, classes=("1", "0"))
    assert turned.label is not None
    assert turned.label.tolist() == [0, 1, 1]


BAD = {
    "no column 'patient'": "label,score\n1,0.9\n0,0.1\n",
    "no column 'label'": "patient,score\nA,0.9\nB,0.1\n",
    "one kind of score is needed and there are: none": "patient,label\nA,1\nB,0\n",
    "there are: score, value": "patient,label,score,value\nA,1,0.9,2\nB,0,0.1,3\n",
    "'label' has 1 different values": "patient,label,score\nA,1,0.9\nB,1,0.1\n",
    "'label' has 3 different values": "patient,label,score\nA,1,0.9\nB,0,0.1\nC,2,0.1\n",
    "row 3: no 'label'": "patient,label,score\nA,1,0.9\nB,NaN,0.1\nC,0,0.3\n",
    "row 2: 'score' is no probability": "patient,label,score\nA,1,1.9\nB,0,0.1\n",
    "row 3: 'score' is no number": "patient,label,score\nA,1,0.9\nB,0,high\n",
    "row 3: no 'score'": "patient,label,score\nA,1,0.9\nB,0,\n",
    "row 3: no 'patient'": "patient,label,score\nA,1,0.9\n,0,0.3\n",
    "sum to 1 in 1 of 2 rows": "patient,label,p a,p b\nA,a,0.9,0.2\nB,b,0.5,0.5\n",
    "row 2: a 'label' not of a, b": "patient,label,p a,p b\nA,c,0.9,0.1\nB,b,0.5,0.5\n",
    "fewer than two classes": "patient,label,p a\nA,a,0.9\nB,a,0.5\n",
    "row 3: no 'time' or no 'event'": "patient,risk,time,event\nA,1,2,1\nB,2,,1\n",
    "row 2: 'event' is neither": "patient,risk,time,event\nA,1,2,maybe\nB,2,3,1\n",
    "the time is missing or negative": "patient,risk,time,event\nA,1,-2,0\nB,2,3,1\n",
    "'part' is neither": "patient,label,score,part\nA,1,0.9,train\nB,0,0.1,test\n",
    "'seed' is no whole": "patient,label,score,seed\nA,1,0.9,1.5\nB,0,0.1,1\n",
    "slide s is predicted twice": "slide,patient,label,score\ns,A,1,0.9\ns,A,1,0.8\nt,B,0,0.1\n",
    "slide s has two patients": "slide,patient,label,score,fold\ns,A,1,0.9,1\ns,B,0,0.8,2\n",
    "Patient A is in the validation part of all and in the test part of all": (
        "patient,label,score,part\nA,1,0.9,test\nB,0,0.1,test\nA,1,0.1,validation\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_tables_are_refused_with_what_is_wrong(message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_predictions(write(tmp_path / "p.csv", BAD[message]))
    assert message in str(caught.value)
    assert caught.value.code in ("E_TABLE", "E_SPLIT")
    assert caught.value.mend


def test_a_strange_list_of_excluded_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "patient,label,score\nA,1,0.9\nB,0,0.2\n")
    write(tmp_path / "excluded.csv", "who,why\nA,no\n")
    with pytest.raises(UsageError, match=r"excluded\.csv: .* columns are not row, slide"):
        read_predictions(path)
    write(tmp_path / "excluded.csv", "row,slide,patient,reason\nA,s,p,r\n")
    with pytest.raises(UsageError, match="line 2 is damaged"):
        read_predictions(path)


def test_scores_are_averaged_over_seeds_and_nothing_else() -> None:
    p = binary(
        slide=np.array(["a", "a", "b", "a"]),
        patient=np.array(["A", "A", "B", "A"]),
        fold=np.array(["1", "1", "1", "2"]),
        seed=np.array([0, 1, 0, 0]),
        part=np.array(["test"] * 4),
        score=np.array([[0.9, 0.1], [0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]),
        label=np.array([0.0, 0.0, 1.0, 0.0]),
    )
    mean = average_seeds(p)
    rows = zip(mean.slide.tolist(), mean.fold.tolist(), mean.score[:, 1].tolist(), strict=True)
    assert list(rows) == [("a", "1", pytest.approx(0.3)), ("b", "1", 0.75), ("a", "2", 0.0)]


def test_folds_stand_in_order_of_their_numbers() -> None:
    p = binary(fold=np.array(["fold 10", "fold 10", "fold 10", "fold 2"]))
    assert p.folds == ("fold 2", "fold 10")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    lines = ["slide,patient,months,died,age,site,sex"]
    lines += [f"s{i},P{i // 2},{i // 2 + 1},{i // 2 % 2},{50 + i // 2},X,f" for i in range(20)]
    table = write(tmp_path / "slides.csv", "\n".join(lines))
    names = ColumnNames(
        time="months", event="died", site="site", covariates=("age",), subgroups=("sex", "site")
    )
    cohort = read_cohort(table, names, Target("survival"))
    return Study(cohort, None, None, Method(recipe=Recipe(epochs=1)))


def test_a_unit_of_survival_is_a_patient_with_the_columns_of_its_first_slide(study: Study) -> None:
    split = Split(np.arange(5), np.array([6, 5]), np.array([9, 7, 8]))
    outcome = Outcome(
        "fold 0", 3, split.validation, np.arange(len(split.validation), dtype=float)[:, None],
        split.test, np.arange(len(split.test), dtype=float)[:, None], (), 1, 0.0,
    )  # fmt: skip
    p = from_outcomes(study, [outcome])
    assert p.kind == "survival"
    assert p.patient.tolist() == [f"P{u}" for u in [*split.validation, *split.test]]
    assert p.slide.tolist() == [f"s{2 * u}" for u in [*split.validation, *split.test]]
    assert p.time is not None
    assert p.time.tolist() == [u + 1 for u in [*split.validation, *split.test]]
    assert p.score[:, 0].tolist() == [*range(len(split.validation)), *range(len(split.test))]
    assert p.part.tolist() == ["validation"] * len(split.validation) + ["test"] * len(split.test)
    assert set(p.seed) == {3}
    assert [c.name for c in p.subgroups] == ["age", "sex"]
    assert p.subgroups[0].values.tolist() == [50 + u for u in [*split.validation, *split.test]]


def test_no_outcomes_are_no_predictions(study: Study) -> None:
    with pytest.raises(UsageError, match="no trainings"):
        from_outcomes(study, [])
