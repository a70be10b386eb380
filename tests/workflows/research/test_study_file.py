"""study.json: what was asked for comes back as it was, and nothing else is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slidetriage.errors import UsageError
from slidetriage.workflows.research.study_file import (
    MAX_BYTES,
    STUDY,
    make_absolute,
    read_study,
    write_study,
)
from slidetriage.workflows.research.training_options import TrainingRequest

REQUEST = TrainingRequest(
    table=Path("slides.csv"),
    features=Path("features"),
    encoder_name="any",
    columns={"slide": "slide", "label": "diagnosis", "site": None},
    covariates=("age",),
    subgroups=("sex", "race"),
    classes=("normal", "tumour"),
    exclude=("unlabelled",),
    head="clam_sb",
    arguments=("hidden=16",),
    epochs=7,
    rate=1e-3,
    folds=3,
    splits=Path("splits.csv"),
    shared_patients="drop",
    keep_sites=True,
    seeds=2,
)


def test_a_request_comes_back_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / STUDY, REQUEST)
    monkeypatch.chdir("/")
    found = read_study(tmp_path / STUDY)
    assert found.table == tmp_path / "slides.csv"
    assert found.features == tmp_path / "features"
    assert found.splits == tmp_path / "splits.csv"
    assert found.columns == {"slide": "slide", "label": "diagnosis"}
    for name in ("covariates", "subgroups", "classes", "exclude", "arguments", "epochs", "rate"):
        assert getattr(found, name) == getattr(REQUEST, name)
    for name in ("head", "folds", "shared_patients", "keep_sites", "seeds", "encoder_name"):
        assert getattr(found, name) == getattr(REQUEST, name)
    assert make_absolute(found) == found


def test_what_was_not_given_stays_away(tmp_path: Path) -> None:
    request = TrainingRequest(tmp_path / "t.csv", None, None, {"label": "x"})
    write_study(tmp_path / STUDY, request)
    assert read_study(tmp_path / STUDY) == request


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.pop(name)


def setting(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("head"), "'head' is missing"),
        (setting("colour", "red"), "unknown field 'colour'"),
        (setting("schema_version", 2), "schema_version must be one of 1"),
        (setting("table", None), "table must be a string"),
        (setting("epochs", "7"), "epochs must be a whole number"),
        (setting("regress", 1), "regress must be true or false"),
        (setting("classes", "normal,tumour"), "classes must be a list"),
        (setting("columns", {"slide": 3}), "'slide' names no column"),
        (setting("columns", {"import": "os"}), "'import' names no column"),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write_study(tmp_path / STUDY, REQUEST)
    record = json.loads((tmp_path / STUDY).read_text())
    change(record)
    (tmp_path / STUDY).write_text(json.dumps(record))
    with pytest.raises(UsageError, match=message) as caught:
        read_study(tmp_path / STUDY)
    assert "slidetriage train" in caught.value.mend


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (MAX_BYTES + 1)]
)
def test_what_is_no_study_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STUDY).write_bytes(content)
    with pytest.raises(UsageError, match=r"study\.json"):
        read_study(tmp_path / STUDY)


def test_an_absent_study_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_study(tmp_path / STUDY)
    assert "slidetriage train" in caught.value.mend
