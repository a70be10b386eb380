"""A CSV file as columns of text, and errors that say in which lines something is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import UsageError

from .cohort import Column

MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "null"})
"""What stands where nothing is known, whatever the case."""

FLAGS = {
    "1": 1.0,
    "1.0": 1.0,
    "true": 1.0,
    "yes": 1.0,
    "0": 0.0,
    "0.0": 0.0,
    "false": 0.0,
    "no": 0.0,
}

PARTS = ("train", "val", "test")

PART_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "tune": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What a part of a split may be called, whatever the case."""

NAMED = 5
"""Rows or names that a message lists; it counts the rest."""

MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table as it was read; nothing in it is understood yet."""

    path: Path
    rows: NDArray[np.int64]
    """Line of the file for each row, of which the header is 1."""
    columns: dict[str, tuple[str, ...]]
    """Text without blanks around it, "" where nothing is said."""

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a CSV file with a header; raises `UsageError` (E_TABLE) where that fails."""
        import pandas

        try:
            if path.stat().st_size > MAX_BYTES:
                raise _error(path, "it is larger than 1 GiB", "That is no table of slides.")
            cells = pandas.read_csv(
                path,
                sep=_find_separator(path),
                header=None,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,
                encoding="utf-8-sig",
            )
        except (OSError, UnicodeDecodeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise _error(
                path, f"the table cannot be read ({error})", "Save it as CSV in UTF-8."
            ) from error
        values = [
            [text.strip() if isinstance(text, str) else "" for text in line]
            for line in cells.to_numpy().tolist()
        ]
        names = values[0]
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise _error(path, f"two columns are called {twice[0]!r}", "Rename one.")
        lines = [(place, line) for place, line in enumerate(values[1:], start=2) if any(line)]
        if not lines:
            raise _error(path, "there is no row below the header", "Add a row for each slide.")
        columns = {
            name: tuple("" if line[at].lower() in MISSING else line[at] for _, line in lines)
            for at, name in enumerate(names)
            if name
        }
        return cls(path, np.array([place for place, _ in lines], np.int64), columns)

    def texts(self, name: str) -> tuple[str, ...]:
        """A column, "" where nothing is said; raises `UsageError` where there is no such."""
        if name not in self.columns:
            raise self.error(
                f"there is no column {name!r} (there are: {', '.join(self.columns)})",
                "Name the right one with the option of its column.",
            )
        return self.columns[name]

    def filled(self, name: str) -> tuple[str, ...]:
        """A column that says something in every row."""
        texts = self.texts(name)
        self.refuse([not text for text in texts], f"no {name!r}")
        return texts

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of finite numbers, NaN where nothing is said."""
        texts = self.texts(name)
        values = np.array([_number(text) for text in texts])
        wrong = [bool(t) and not np.isfinite(v) for t, v in zip(texts, values, strict=True)]
        self.refuse(wrong, f"{name!r} is no number")
        return values

    def flags(self, name: str) -> NDArray[np.float64]:
        """A column of yes and no as 1 and 0, NaN where nothing is said."""
        texts = self.texts(name)
        # cBioPortal writes "1:DECEASED".
        values = [FLAGS.get(text.lower().partition(":")[0].strip(), np.nan) for text in texts]
        wrong = [bool(t) and np.isnan(v) for t, v in zip(texts, values, strict=True)]
        self.refuse(wrong, f"{name!r} is neither yes nor no", "Write 1 or 0.")
        return np.array(values)

    def parts(self, name: str) -> tuple[str, ...]:
        """A column of train, val and test, however they are called."""
        texts = self.filled(name)
        parts = [PART_NAMES.get(text.lower(), "") for text in texts]
        wrong = [not part for part in parts]
        self.refuse(wrong, f"{name!r} is none of train, val and test", "Call them so.")
        return tuple(parts)

    def column(self, name: str) -> Column:
        """A column as numbers if all it says are numbers, as categories otherwise."""
        texts = self.texts(name)
        numbers = np.array([_number(text) for text in texts])
        if all(np.isfinite(v) or not t for t, v in zip(texts, numbers, strict=True)):
            return Column(name, "number", numbers)
        return Column(name, "category", np.array(texts))

    def refuse(self, wrong: ArrayLike, what: str, mend: str = "Correct them.") -> None:
        """Raise `UsageError` (E_TABLE) that lists the rows which are wrong, if any is."""
        lines = self.rows[np.asarray(wrong, np.bool_)].tolist()
        if lines:
            raise self.error(
                f"{'row' if len(lines) == 1 else 'rows'} {list_some(lines)}: {what}", mend
            )

    def error(self, what: str, mend: str) -> UsageError:
        """The error for this table."""
        return _error(self.path, what, mend)


def list_some(values: Iterable[object]) -> str:
    """The first few, and how many more there are.

    >>> list_some(range(2, 9))
    '2, 3, 4, 5, 6 and 2 more'
    """
    texts = [str(value) for value in values]
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _error(path: Path, what: str, mend: str) -> UsageError:
    return UsageError(f"{path}: {what}.", mend=mend, code="E_TABLE")


def _find_separator(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline(2**16)
    return max(",;\t", key=header.count)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
