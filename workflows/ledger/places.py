"""Where the record of a run lies in its output folder."""

from __future__ import annotations

from pathlib import Path

from slidetriage.errors import UsageError

RUN = "run"
"""Folder of all that depends on when and where: never a slide's result."""
PRIVATE = "private"
"""Folder within it that only its owner may read."""
AUDIT = "audit.jsonl"
SLIDES = "slides.jsonl"
REPORT_HTML, REPORT_LINES = "report.html", "report.jsonl"
_MARKS = (f"{RUN}/{AUDIT}", "worklist.json", "worklist.csv")


def audit_path(out: Path) -> Path:
    """Where the audit log of an output folder is."""
    return out / RUN / AUDIT


def slides_path(out: Path) -> Path:
    """Where the private mapping file of an output folder is."""
    return out / RUN / PRIVATE / SLIDES


def is_output(folder: Path) -> bool:
    """Whether a run has written here."""
    return any((folder / mark).is_file() for mark in _MARKS)


def check_output(out: Path) -> None:
    """Raise `UsageError` where a folder was not written by a run."""
    if not is_output(out):
        raise UsageError(
            f"{out}: no run has written here.",
            mend="Name the folder that a run was given with --out.",
        )


def check_audit(out: Path) -> Path:
    """The audit log of an output folder; raises `UsageError` where there is none."""
    check_output(out)
    path = audit_path(out)
    if not path.is_file():
        raise UsageError(
            f"{out}: there is no audit log ({RUN}/{AUDIT}).",
            mend="It is written by a run; run again to begin one.",
        )
    return path


def plain(text: str) -> str:
    r"""On one line and safe to print: what is not printable becomes an escape.

    >>> plain("a\nb")
    'a\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
