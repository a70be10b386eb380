"""Tables of slides: what they say is taken exactly, and what cannot be is refused by its row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slidetriage.errors import UsageError
from slidetriage.workflows.research import ColumnNames, Target, read_cohort

Find = Callable[[str], Path]

TEXT = """slide,patient,site,label,months,died,age,sex,fold,split
a,P1,S1,tumour,10,1,50,f,0,train
b,P1,S1,normal,10,1,50,f,0,train
c,P2,S2,normal,3.5,0,61,m,1,val
d,P3,S2,tumour,0,1,,m,2,test
"""

LABELLED = ColumnNames(label="label")
SURVIVAL = ColumnNames(time="months", event="died")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def changed(tmp_path: Path, old: str, new: str) -> Path:
    assert TEXT.count(old) == 1
    return write(tmp_path, TEXT.replace(old, new))


def test_a_table_becomes_a_cohort(tmp_path: Path) -> None:
    names = ColumnNames(
        label="label", site="site", fold="fold", covariates=("age", "sex"), subgroups=("sex",)
    )
    cohort = read_cohort(write(tmp_path, TEXT), names)
    assert cohort.slides == ("a", "b", "c", "d")
    assert cohort.patients == ("P1", "P1", "P2", "P3")
    assert cohort.rows.tolist() == [2, 3, 4, 5]
    assert cohort.target.classes == ("normal", "tumour")
    assert cohort.labels is not None
    assert cohort.labels.tolist() == [1, 0, 0, 1]
    assert cohort.sites == ("S1", "S1", "S2", "S2")
    assert cohort.folds == ("0", "0", "1", "2")
    age, sex = cohort.covariates
    assert (age.kind, sex.kind) == ("number", "category")
    np.testing.assert_array_equal(age.values, [50, 50, 61, np.nan])
    assert sex.categories == ("f", "m")
    assert cohort.excluded == ()


def test_classes_are_numbered_as_they_are_named(tmp_path: Path) -> None:
    target = Target(classes=("tumour", "normal"))
    cohort = read_cohort(write(tmp_path, TEXT), LABELLED, target)
    assert cohort.labels is not None
    assert cohort.labels.tolist() == [0, 1, 1, 0]


def test_survival_has_times_and_events(tmp_path: Path) -> None:
    cohort = read_cohort(write(tmp_path, TEXT), SURVIVAL, Target("survival"))
    assert cohort.times is not None
    assert cohort.events is not None
    assert cohort.times.tolist() == [10, 10, 3.5, 0]
    assert cohort.events.tolist() == [True, True, False, True]
    turned = ColumnNames(time="months", censored="died")
    cohort = read_cohort(write(tmp_path, TEXT), turned, Target("survival"))
    assert cohort.events is not None
    assert cohort.events.tolist() == [False, False, True, False]


def test_a_number_is_learned_from_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    names = ColumnNames(label="age")
    with pytest.raises(UsageError, match="row 5: no 'age'"):
        read_cohort(path, names, Target("number"))
    cohort = read_cohort(path, names, Target("number"), excuse={"unlabelled"})
    assert cohort.labels is not None
    assert cohort.labels.tolist() == [50, 50, 61]
    assert [(row.row, row.slide, row.patient) for row in cohort.excluded] == [(5, "d", "P3")]
    assert "age" in cohort.excluded[0].reason


def test_slides_may_be_called_as_their_features(tmp_path: Path) -> None:
    path = write(tmp_path, "file\nf/a.x.zarr\nf/b.h5\n")
    cohort = read_cohort(
        path, ColumnNames(slide=None, features="file", patient=None), Target("none")
    )
    assert cohort.slides == cohort.patients == ("a.x", "b")
    assert cohort.features == (tmp_path / "f" / "a.x.zarr", tmp_path / "f" / "b.h5")
    with pytest.raises(UsageError, match="No column holds the slides"):
        read_cohort(path, ColumnNames(slide=None), Target("none"))


@pytest.mark.parametrize("text", [TEXT.replace(",", ";"), TEXT.replace(",", "\t"), "\ufeff" + TEXT])
def test_other_separators_and_a_byte_order_mark_are_read(tmp_path: Path, text: str) -> None:
    assert len(read_cohort(write(tmp_path, text), LABELLED)) == 4


def test_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = changed(tmp_path, "c,P2", "\n\nc,P2")
    assert read_cohort(path, LABELLED).rows.tolist() == [2, 3, 6, 7]


@pytest.mark.parametrize(
    ("old", "new", "names", "target", "said"),
    [
        ("site,label", "site,tag", LABELLED, Target(), "no column 'label'"),
        ("b,P1,S1,normal", "b,P1,S1,NaN", LABELLED, Target(), "row 3"),
        ("b,P1,S1", "b,,S1", LABELLED, Target(), "row 3"),
        (
            "c,P2,S2,normal",
            "a,P2,S2,normal",
            LABELLED,
            Target(),
            "row 4: a slide that was",
        ),
        ("d,P3,S2,tumour", "d,P3,S2,odd", LABELLED, Target(classes=("normal", "tumour")), "odd"),
        ("c,P2,S2,normal,3.5", "c,P2,S2,normal,", SURVIVAL, Target("survival"), "row 4"),
        ("3.5,0,61", "3.5,,61", SURVIVAL, Target("survival"), "row 4"),
        ("normal,3.5", "normal,-3.5", SURVIVAL, Target("survival"), "negative"),
        ("normal,3.5", "normal,soon", SURVIVAL, Target("survival"), "no number"),
        ("3.5,0,61", "3.5,perhaps,61", SURVIVAL, Target("survival"), "neither yes nor no"),
        ("b,P1,S1,normal,10", "b,P1,S1,normal,11", SURVIVAL, Target("survival"), "rows 3"),
        ("f,0,train\nc", "f,1,train\nc", ColumnNames(fold="fold"), Target("none"), "P1"),
        ("f,0,train\nc", "f,0,test\nc", ColumnNames(split="split"), Target("none"), "P1"),
        ("months,died", "months,months", LABELLED, Target(), "two columns"),
        ("c,P2", "c,P2,more", LABELLED, Target(), "line 4"),
    ],
)
def test_what_cannot_be_is_refused_by_row(
    tmp_path: Path, old: str, new: str, names: ColumnNames, target: Target, said: str
) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(UsageError, match=said) as caught:
        read_cohort(path, names, target)
    assert caught.value.code == "E_TABLE"
    assert caught.value.mend


def test_one_value_alone_cannot_be_learned(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT.replace("tumour", "normal"))
    with pytest.raises(UsageError, match="only the value normal"):
        read_cohort(path, LABELLED)
    path = write(tmp_path, TEXT.replace(",1,50", ",0,50").replace("0,1,,m", "0,0,,m"))
    with pytest.raises(UsageError, match="no row has an event"):
        read_cohort(path, SURVIVAL, Target("survival"))


def test_only_the_first_rows_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    lines = "".join(f"s{n},P{n},\n" for n in range(9))
    path = write(tmp_path, f"slide,patient,label\n{lines}")
    with pytest.raises(UsageError, match="rows 2, 3, 4, 5, 6 and 4 more"):
        read_cohort(path, LABELLED)


def test_a_column_of_measurements_is_no_column_of_classes(tmp_path: Path) -> None:
    lines = "".join(f"s{n},P{n},{n / 7}\n" for n in range(60))
    path = write(tmp_path, f"slide,patient,label\n{lines}")
    with pytest.raises(UsageError, match="60 different values"):
        read_cohort(path, LABELLED)


@pytest.mark.parametrize("content", [b"", b"slide,patient\n", b"\xff\xfe\x00a,b\n", b"a" * 70000])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        read_cohort(path, LABELLED)
    with pytest.raises(UsageError, match="cannot be read"):
        read_cohort(tmp_path / "missing.csv", LABELLED)


def test_tcga_breast_as_it_is_published(data: Find) -> None:
    """IDC against ILC: 726 and 149 rows of the table, the 62 of other types kept with why."""
    names = ColumnNames(
        slide="slide_id",
        patient="case_id",
        site="site",
        label="oncotree_code",
        covariates=("age", "is_female", "TP53_mut"),
    )
    path = data("mil/tcga_brca/slides.csv")
    target = Target(classes=("IDC", "ILC"))
    with pytest.raises(UsageError, match=r"and 57 more: .*ACBC"):
        read_cohort(path, names, target)
    cohort = read_cohort(path, names, target, excuse={"other-label"})
    assert cohort.labels is not None
    assert np.bincount(cohort.labels.astype(int)).tolist() == [726, 149]
    assert len(cohort.excluded) == 937 - 875
    reasons = Counter(row.reason.rpartition(": ")[2] for row in cohort.excluded)
    assert reasons["MDLC"] == 25
    assert {column.kind for column in cohort.covariates} == {"number"}
    outcome = ColumnNames("slide_id", patient="case_id", time="survival_months",
                          censored="censorship")  # fmt: skip
    survival = read_cohort(path, outcome, Target("survival"))
    assert survival.events is not None
    assert 0 < survival.events.sum() < len(survival) / 2
