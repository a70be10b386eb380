"""Predictions as CSV: written by a study, or brought by a researcher from another tool."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from slidetriage.errors import UsageError
from slidetriage.workflows.publishing import write_whole
from slidetriage.workflows.worklist import as_cell

from .cohort import ExcludedRow
from .predictions import TEST, VALIDATION, Kind, Names, Numbers, Predictions
from .table_reading import Table

EXCLUDED = "excluded.csv"
"""Lies beside the predictions: the rows of the cohort that were left out."""

RESERVED = (
    "slide", "patient", "fold", "seed", "part", "label", "score", "value", "risk", "time",
    "event", "site",
)  # fmt: skip
"""Names no column of subgroups may have; nor may one begin with `p `."""

_PARTS = {
    "": TEST, "test": TEST, "testing": TEST,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "tune": VALIDATION,
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0", "'")
_EXCLUDED_COLUMNS = ("row", "slide", "patient", "reason")


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the predictions, and `excluded.csv` beside them; each in one step.

    Text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    p = predictions
    for column in p.subgroups:
        if column.name in RESERVED or column.name.startswith("p "):
            raise UsageError(
                f"A column of subgroups is called {column.name!r}, which means something else.",
                mend="Rename it in the table of slides.",
                code="E_TABLE",
            )
    columns: dict[str, Iterable[object]] = {
        "slide": p.slide.tolist(), "patient": p.patient.tolist(), "fold": p.fold.tolist(),
        "seed": p.seed.tolist(), "part": p.part.tolist(),
    }  # fmt: skip
    if p.kind == "classes" and p.label is not None:
        columns["label"] = [p.classes[int(number)] for number in p.label]
        columns |= {f"p {name}": p.score[:, at].tolist() for at, name in enumerate(p.classes)}
    elif p.kind == "number" and p.label is not None:
        columns |= {"label": p.label.tolist(), "value": p.score[:, 0].tolist()}
    elif p.time is not None and p.event is not None:
        columns |= {"risk": p.score[:, 0].tolist(), "time": p.time.tolist()}
        columns["event"] = p.event.astype(int).tolist()
    if p.site is not None:
        columns["site"] = p.site.tolist()
    for column in p.subgroups:
        columns[column.name] = [_blank_nan(value) for value in column.values.tolist()]
    _write(path, list(columns), zip(*columns.values(), strict=True))
    rows = [(e.row, e.slide, e.patient, e.reason) for e in p.excluded]
    _write(path.with_name(EXCLUDED), _EXCLUDED_COLUMNS, rows)


def read_predictions(path: Path, *, classes: Sequence[str] = ()) -> Predictions:
    """Read what `write_predictions` wrote, or a table of another tool.

    Of another tool only `patient`, `label` and `score` (the probability of the positive class) are
    needed; or `p <class>` for each class, or `value`, or `risk` with `time` and `event`. Rows are
    of the test part where nothing else is said. Every other column is one of subgroups.

    Parameters
    ----------
    classes
        The two labels that `score` is about, the positive one last; sorted if not given.

    Raises
    ------
    UsageError
        The table cannot be read or contradicts itself (E_TABLE, E_SPLIT).
    """
    read = Table.read(path)
    columns = {_unquote(n): tuple(map(_unquote, texts)) for n, texts in read.columns.items()}
    table = Table(path, read.rows, columns)
    kind, names, score = _read_scores(table, tuple(classes))
    patient = np.array(table.filled("patient"))
    label = time = event = None
    if kind == "survival":
        time, flags = table.numbers("time"), table.flags("event")
        table.refuse(np.isnan(time) | np.isnan(flags), "no 'time' or no 'event'")
        event = flags == 1
    else:
        label = _read_labels(table, kind, names)
    own = set(RESERVED) | {name for name in columns if name.startswith("p ")}
    return Predictions(
        kind=kind,
        classes=names,
        slide=_read_slides(table, patient),
        patient=patient,
        fold=_read_or(table, "fold", "all"),
        seed=_read_seeds(table),
        part=_read_parts(table),
        score=score,
        label=label,
        time=time,
        event=event,
        site=np.array(table.texts("site")) if "site" in columns else None,
        subgroups=tuple(table.column(name) for name in columns if name not in own),
        excluded=_read_excluded(path.with_name(EXCLUDED)),
    )


def _read_scores(table: Table, classes: tuple[str, ...]) -> tuple[Kind, tuple[str, ...], Numbers]:
    """What is predicted, the classes, and N x P scores."""
    given = [name for name in ("score", "value", "risk") if name in table.columns]
    named = [name for name in table.columns if name.startswith("p ")]
    if len(given) + bool(named) != 1:
        found = ", ".join([*given, *named]) or "none"
        raise table.error(
            f"one kind of score is needed and there are: {found}",
            "Give `score`, `value`, `risk`, or a column `p <class>` for each class.",
        )
    columns = [_filled_numbers(table, name) for name in given or named]
    if named:
        return "classes", tuple(name[2:] for name in named), np.stack(columns, axis=1)
    if given == ["value"]:
        return "number", (), columns[0][:, None]
    if given == ["risk"] or ("label" not in table.columns and "time" in table.columns):
        return "survival", (), columns[0][:, None]
    labels = tuple(sorted(set(table.filled("label"))))
    names = classes or labels
    if len(names) != 2:
        raise table.error(
            f"'label' has {len(names)} different values and `score` is about two",
            "Give a column `p <class>` for each class, or `value` for a number.",
        )
    table.refuse((columns[0] < 0) | (columns[0] > 1), "'score' is no probability from 0 to 1")
    return "classes", names, np.stack([1 - columns[0], columns[0]], axis=1)


def _read_labels(table: Table, kind: Kind, classes: tuple[str, ...]) -> Numbers:
    if kind == "number":
        return _filled_numbers(table, "label")
    texts = table.filled("label")
    table.refuse([text not in classes for text in texts], f"a 'label' not of {', '.join(classes)}")
    return np.array([classes.index(text) for text in texts], np.float64)


def _filled_numbers(table: Table, name: str) -> Numbers:
    values = table.numbers(name)
    table.refuse(np.isnan(values), f"no {name!r}")
    return values


def _read_slides(table: Table, patient: Names) -> Names:
    """The slides; where they are not named, each row is one."""
    if "slide" in table.columns:
        return np.array(table.filled("slide"))
    rows = zip(patient.tolist(), table.rows.tolist(), strict=True)
    return np.array([f"{name} (line {row})" for name, row in rows])


def _read_seeds(table: Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if "seed" not in table.columns:
        return np.zeros(len(table.rows), np.int64)
    seeds = _filled_numbers(table, "seed")
    table.refuse(seeds != np.floor(seeds), "'seed' is no whole number")
    return seeds.astype(np.int64)


def _read_parts(table: Table) -> Names:
    texts = [text.lower() for text in _read_or(table, "part", TEST).tolist()]
    table.refuse([t not in _PARTS for t in texts], "'part' is neither validation nor test")
    return np.array([_PARTS[text] for text in texts])


def _read_or(table: Table, name: str, otherwise: str) -> Names:
    if name not in table.columns:
        return np.full(len(table.rows), otherwise)
    return np.array(table.filled(name))


def _read_excluded(path: Path) -> tuple[ExcludedRow, ...]:
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[_unquote(cell) for cell in line] for line in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad_excluded(path, str(error)) from error
    if not lines or tuple(lines[0]) != _EXCLUDED_COLUMNS:
        raise _bad_excluded(path, f"its columns are not {', '.join(_EXCLUDED_COLUMNS)}")
    for place, line in enumerate(lines[1:], start=2):
        if len(line) != len(_EXCLUDED_COLUMNS) or not line[0].isdecimal():
            raise _bad_excluded(path, f"line {place} is damaged")
    return tuple(ExcludedRow(int(row), *rest) for row, *rest in lines[1:])


def _bad_excluded(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path}: the list of excluded rows cannot be read ({why}).",
        mend="Move it elsewhere if it belongs to other predictions.",
        code="E_TABLE",
    )


def _write(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([_quote(name) for name in header])
    writer.writerows([[_quote(value) for value in row] for row in rows])
    write_whole(path, text.getvalue().encode("utf-8"))


def _quote(value: object) -> object:
    """As `as_cell`, and so that what begins with an apostrophe comes back as it was."""
    if isinstance(value, str) and value.startswith("'"):
        return f"'{value}"
    return as_cell(value)


def _unquote(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:2] and text[1] in _FORMULA else text


def _blank_nan(value: object) -> object:
    return "" if isinstance(value, float) and np.isnan(value) else value
