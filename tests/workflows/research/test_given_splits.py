"""Given splits: the rows they name, and never one patient on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slidetriage.errors import UsageError
from slidetriage.workflows.research import (
    Cohort,
    ColumnNames,
    Target,
    read_cohort,
    read_splits,
    split_by_columns,
)

Find = Callable[[str], Path]

TABLE = "slide,patient,fold,split\na,P1,10,train\nb,P1,10,train\nc,P2,2,validation\nd,P3,2,test\n"


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return read_cohort(path, ColumnNames(fold="fold"), Target("none"))


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "splits.csv"
    path.write_text("fold,part,slide_id\n" + "".join(f"{line}\n" for line in lines))
    return path


def test_a_csv_of_splits_names_rows(tmp_path: Path, cohort: Cohort) -> None:
    path = write(tmp_path, "x,Train,a", "x,train,b", "x,val,c", "x,test,d", "x,test,gone")
    (split,) = read_splits(path, cohort)
    assert split.name == "x"
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[0, 1], [2], [3]]
    assert split.unknown == ("gone",)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("0,train,a", "0,test,b", "0,test,d"), "1 patients in two parts: P1"),
        (("0,train,a", "0,val,b", "0,test,d"), "1 patients in two parts: P1"),
        (("0,train,a", "0,test,a", "0,test,d"), "slide a twice, in train and in test"),
        (("0,train,gone", "0,test,gone", "0,train,a", "0,test,d"), "slide gone twice"),
        (("0,train,a", "0,train,a", "0,test,d"), "twice"),
        (("0,train,a", "0,hold,d"), "row 3"),
        (("0,train,a", "0,test,gone"), "to test on"),
        (("0,test,a",), "to train on"),
    ],
)
def test_a_split_that_leaks_or_lacks_is_refused(
    tmp_path: Path, cohort: Cohort, lines: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_splits(write(tmp_path, *lines), cohort)


def test_a_column_of_folds_tests_each_once(cohort: Cohort) -> None:
    two, ten = split_by_columns(cohort)
    assert (two.name, ten.name) == ("2", "10")
    assert (two.train.tolist(), two.test.tolist()) == ([0, 1], [2, 3])
    assert (ten.train.tolist(), ten.test.tolist()) == ([2, 3], [0, 1])


def test_a_column_of_splits_is_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    cohort = read_cohort(path, ColumnNames(split="split"), Target("none"))
    (split,) = split_by_columns(cohort)
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[0, 1], [2], [3]]
    assert split_by_columns(read_cohort(path, target=Target("none"))) == ()


def test_a_split_may_not_be_called_anything(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE.replace("validation", "later"))
    with pytest.raises(UsageError, match="row 4"):
        read_cohort(path, ColumnNames(split="split"), Target("none"))


def test_patients_in_two_parts_are_dropped_where_they_would_give_the_answer_away(
    tmp_path: Path, cohort: Cohort
) -> None:
    path = write(tmp_path, "0,test,a", "0,train,b", "0,val,c", "0,train,d")
    (split,) = read_splits(path, cohort, shared="drop")
    assert [part.tolist() for part in (split.train, split.val, split.test)] == [[3], [2], [0]]
    (kept,) = read_splits(path, cohort, shared="keep")
    assert [part.tolist() for part in (kept.train, kept.val, kept.test)] == [[1, 3], [2], [0]]
    assert split.shared_patients == kept.shared_patients == ("P1",)


def test_the_ten_folds_of_tcga_breast(data: Find) -> None:
    """They were drawn by slide: in each, slides of some patients are both learned and tested."""
    names = ColumnNames("slide_id", patient="case_id", label="oncotree_code")
    cohort = read_cohort(
        data("mil/tcga_brca/slides.csv"),
        names,
        Target(classes=("IDC", "ILC")),
        excuse={"other-label"},
    )
    path = data("mil/tcga_brca/splits.csv")
    with pytest.raises(UsageError, match="fold 0 has 12 patients in two parts"):
        read_splits(path, cohort)
    published = read_splits(path, cohort, shared="keep")
    assert [split.name for split in published] == [str(n) for n in range(10)]
    for split in published:
        assert len(split.train) + len(split.val) + len(split.test) == 875
        assert len(split.unknown) == 1041 - 875
        assert len(split.shared_patients) >= 5
    for split, leaking in zip(read_splits(path, cohort, shared="drop"), published, strict=True):
        people = [
            {cohort.patients[row] for row in part} for part in (split.train, split.val, split.test)
        ]
        assert len(set.union(*people)) == sum(map(len, people))
        assert split.test.tolist() == leaking.test.tolist()
        assert len(split.train) > 650
