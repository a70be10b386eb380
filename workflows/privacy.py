"""No identity leaves: names, folders and patients are taken out of texts that others wrote.

Messages come from many libraries, which quote and escape paths in their own ways. What a slide is
called instead is said by `sources.display_name`; who it was stands in the private mapping file.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from urllib.parse import quote, quote_plus

from .identity import slug
from .settings import Settings
from .sources import SLIDE_SUFFIXES, SlideRequest, display_name

FOLDER, PATIENT, FILE, NAME = "(folder)", "(patient)", "(file)", "(name)"
"""What stands in a text for what was taken out."""

_EVERYDAY_WORDS = (
    "case cases content cpu cuda data dataset datasets dev dicom disk export file files "
    "folder gpu heatmap home image images input labels level levels mask media mnt model "
    "models name net new none not opt out output outputs path patient pixels private "
    "proc project projects public raw read results root row run runs scan scanner scans "
    "share shared slide slides src srv staging svs test tests tif tiff tile tiles tissue "
    "tmp train user users usr val var volume volumes work wsi wsis"
)
_EVERYDAY = frozenset(_EVERYDAY_WORDS.split())
"""Words that identify nobody, and that messages use themselves; not taken out on their own."""

_SHORT = 5
"""Characters below which a term must stand alone in a text to be meant."""

_ESCAPES = frozenset("%\\&")

_RUN = re.compile(r"[a-z0-9]+")

_KEPT = re.compile(
    r"slide-row-\d{6,}|slide-[0-9a-f]{12}(?![0-9a-f])|\((?:folder|patient|file|name)\)"
)

_INSIDE_FOLDER = re.compile(r"(?:\(folder\)(?:/|\\+/?|%2f|%5c|&#x2f;)+)+", re.IGNORECASE)

_SLIDE_FILE = re.compile(
    rf"[^\s/\\'\"():,;=<>|]*[^\s/\\'\"():,;=<>|.]"
    rf"(?:{'|'.join(re.escape(suffix) for suffix in SLIDE_SUFFIXES)})\b",
    re.IGNORECASE,
)


class Redactor:
    """Takes what identifies out of texts, in whatever way it is quoted or escaped there.

    Folders and patients go always. The names of files and slides go where the settings say so, and
    the slide's display name comes in their place; so do other names that look like a slide's file,
    such as those of its companion files.

    Parameters
    ----------
    requests
        Slides that texts may be about; a hundred thousand cost no more per text than one.
    settings
        Whether names may be told.
    terms
        Further names to take out.
    """

    def __init__(
        self,
        requests: Iterable[SlideRequest] = (),
        settings: Settings | None = None,
        *,
        terms: Iterable[str] = (),
    ) -> None:
        settings = settings or Settings()
        self._nameless = settings.deidentify
        self._shown: dict[str, str | None] = {}
        folders: set[Path] = set()
        for request in requests:
            folders.add(request.path.parent)
            self._add_slide(request, settings)
        for term in terms:
            self._add(term, NAME)
        for folder in folders:
            for place in {str(folder), os.path.abspath(folder), os.path.realpath(folder)}:
                if "/" in place[1:]:
                    self._shown.setdefault(place, FOLDER)
                for part in Path(place).parts:
                    self._add(part, FOLDER)
        self._index, self._unindexed = _index(self._shown)

    def _add_slide(self, request: SlideRequest, settings: Settings) -> None:
        # A name that may be told stays, though it may hold that of a folder or a patient.
        called = display_name(request, settings) if self._nameless else None
        for name in {request.path.stem, request.name}:
            self._add(name, called)
        if not _is_telling(request.path.stem):
            self._shown.setdefault(request.path.name, called)
        if request.patient_id:
            self._add(request.patient_id, PATIENT)

    def _add(self, term: str, shown: str | None) -> None:
        if _is_telling(term):
            self._shown.setdefault(term, shown)

    def redact(self, text: str) -> str:
        """The text without what identifies; one that was redacted before stays as it is."""
        low = text.lower()
        forms: dict[str, str | None] = {}
        for term in self._candidates(low):
            for form in _forms(term):
                if form.lower() in low:
                    forms.setdefault(form.lower(), self._shown[term])
        if forms:
            # At any place the longest counts: a file's name before the patient's at its start.
            ordered = sorted(forms, key=lambda form: (-len(form), form))
            pattern = "|".join((_KEPT.pattern, *map(_as_pattern, ordered)))
            text = re.sub(
                pattern,
                lambda match: forms.get(match[0].lower()) or match[0],
                text,
                flags=re.IGNORECASE,
            )
        text = _INSIDE_FOLDER.sub("", text)
        return _SLIDE_FILE.sub(_without_file, text) if self._nameless else text

    def _candidates(self, low: str) -> set[str]:
        """The terms that may be in a text of lower case, found by a run of letters and digits."""
        found: set[str] = set()
        for beginning, terms in self._unindexed.items():
            if beginning in low or _ESCAPES & set(low):
                found.update(terms)
        for run in _RUN.findall(low):
            for start in range(len(run)):
                for end in range(start + 1, len(run) + 1):
                    found.update(self._index.get(run[start:end], ()))
        return found


class RedactingFilter(logging.Filter):
    """Takes what identifies out of log records, and keeps each message on one line."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; none is dropped."""
        record.msg = on_one_line(self._redactor.redact(record.getMessage()))
        record.args = None
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(
                record.exc_info
            )
            record.exc_info = None
        if record.exc_text:
            record.exc_text = self._redactor.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self._redactor.redact(record.stack_info)
        return True


@contextmanager
def redacted_logs(redactor: Redactor) -> Iterator[None]:
    """While it lasts, every handler that there is now, and Python's warnings, tell no identity."""
    named = [each for each in logging.root.manager.loggerDict.values()
             if isinstance(each, logging.Logger)]  # fmt: skip
    handlers = {handler for logger in (logging.root, *named) for handler in logger.handlers}
    if logging.lastResort is not None:
        handlers.add(logging.lastResort)
    guard = RedactingFilter(redactor)
    for handler in handlers:
        handler.addFilter(guard)
    # Not by logging.captureWarnings: where somebody called that before, it does nothing, and what
    # it set then may have been taken back since.
    shown = warnings.showwarning
    warnings.showwarning = _log_warning
    try:
        yield
    finally:
        warnings.showwarning = shown
        for handler in handlers:
            handler.removeFilter(guard)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Give one of Python's warnings to the log, where a filter sees it, and to nobody else."""
    logger = logging.getLogger("py.warnings")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.warning("%s", warnings.formatwarning(message, category, filename, lineno, line))


def on_one_line(text: str) -> str:
    r"""A text that can be written anywhere: what cannot be printed is escaped.

    >>> on_one_line("two\nlines and \x1b[31mred")
    'two\\nlines and \\x1b[31mred'
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def _is_telling(term: str) -> bool:
    """Whether a name on its own says who or where, rather than being any word or number."""
    plain = term.strip(" ./\\")
    return len(plain) >= 3 + plain.isdigit() and plain.lower() not in _EVERYDAY


def _index(terms: Iterable[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Terms by the rarest of their runs of ASCII letters and digits; by their first letter else.

    No escaping changes such a run, so a term is in a text only where its run is.
    """
    times: Counter[str] = Counter()
    for term in terms:
        times.update(set(_runs(term)))
    index: dict[str, list[str]] = {}
    without: dict[str, list[str]] = {}
    for term in terms:
        runs = _runs(term)
        if runs:
            index.setdefault(min(runs, key=lambda run: (times[run], -len(run))), []).append(term)
        else:
            letter = unicodedata.normalize("NFC", term)[0].lower()
            without.setdefault(unicodedata.normalize("NFD", letter)[0], []).append(term)
    return index, without


def _runs(term: str) -> list[str]:
    # A slug is cut off, so what lies at the end may be missing from it.
    runs: list[str] = _RUN.findall(unicodedata.normalize("NFC", term[:40]).lower())
    return runs


def _forms(term: str) -> set[str]:
    """The ways in which a term may be written in a text; escapes may be escaped again."""
    plain = {term, unicodedata.normalize("NFC", term), unicodedata.normalize("NFD", term)}
    forms = set(plain)
    fresh = plain
    for _ in range(2):
        fresh = {form for each in fresh for form in _escaped(each)} - forms
        forms |= fresh
    name = slug(term)
    return forms | ({name} if _is_telling(name) else set())


def _escaped(term: str) -> Iterator[str]:
    yield quote(term, errors="surrogateescape")
    yield quote(term, safe="", errors="surrogateescape")
    yield quote_plus(term, errors="surrogateescape")
    yield json.dumps(term)[1:-1]
    yield json.dumps(term)[1:-1].replace("/", "\\/")
    yield json.dumps(term, ensure_ascii=False)[1:-1]
    yield repr(term)[1:-1]
    yield ascii(term)[1:-1]
    yield repr(term.encode("utf-8", "surrogateescape"))[2:-1]
    yield html.escape(term)
    yield term.encode("ascii", "xmlcharrefreplace").decode("ascii")
    yield on_one_line(term)


def _without_file(match: re.Match[str]) -> str:
    """A display name without the suffix that came after it; any other file is not named."""
    stem = match[0].rpartition(".")[0]
    return stem if _KEPT.fullmatch(stem) else FILE


def _as_pattern(form: str) -> str:
    if len(form) >= _SHORT:
        return re.escape(form)
    return rf"(?<![a-z0-9]){re.escape(form)}(?![a-z0-9])"
