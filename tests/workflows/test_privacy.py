"""What identifies is taken out of texts, however a library quotes it, and nothing else is."""

from __future__ import annotations

import html
import io
import json
import logging
import unicodedata
import urllib.parse
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidetriage.workflows.identity import slug
from slidetriage.workflows.privacy import (
    RedactingFilter,
    Redactor,
    on_one_line,
    redacted_logs,
)
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest

HIDDEN = Settings(deidentify=True)
SLIDE = SlideRequest(
    Path('/archive/Wärd 7/DOE JANE/Müller & Söhne "7".svs'),
    "Case 4711",
    patient_id="MRN-99",
    row=12,
)
SHOWN = "slide-row-000012"

QUOTINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "repr": repr,
    "ascii": ascii,
    "repr of repr": lambda text: repr(repr(text)),
    "bytes": lambda text: repr(text.encode()),
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON of PHP": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "URL": urllib.parse.quote,
    "whole URL": lambda text: urllib.parse.quote(text, safe=""),
    "form": urllib.parse.quote_plus,
    "lower URL": lambda text: urllib.parse.quote(text).lower(),
    "URL twice": lambda text: urllib.parse.quote(urllib.parse.quote(text)),
    "HTML": html.escape,
    "references": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "upper": str.upper,
    "lower": str.lower,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "file URL": lambda text: Path(text).as_uri() if text.startswith("/") else text,
    "slug": slug,
}


def left_of(text: str) -> list[str]:
    """The parts of the identity that are in a text, all of them ASCII."""
    return [
        part
        for part in ("archive", "doe", "jane", "ller", "hne", "4711", "mrn", "99")
        if part in text.lower()
    ]


@pytest.mark.parametrize("quoting", QUOTINGS)
def test_nothing_is_left_in_whatever_quoting(quoting: str) -> None:
    quote, redactor = QUOTINGS[quoting], Redactor([SLIDE], HIDDEN)
    assert SLIDE.patient_id is not None
    for told in (str(SLIDE.path), SLIDE.path.name, SLIDE.path.stem, SLIDE.name, SLIDE.patient_id):
        text = f"TIFFOpen: {quote(told)}: cannot be opened"
        assert left_of(text), "there is something to take out"
        redacted = redactor.redact(text)
        assert left_of(redacted) == []
        assert redacted.startswith("TIFFOpen: ")
        assert redacted.endswith(": cannot be opened")


def test_the_display_name_comes_in_place_of_the_slide() -> None:
    redactor = Redactor([SLIDE], HIDDEN)
    assert redactor.redact(f"{SLIDE.path}: bad tile") == f"{SHOWN}: bad tile"
    assert redactor.redact(f"{SLIDE.path.name}: bad tile") == f"{SHOWN}: bad tile"
    assert redactor.redact(f"No such file: '{SLIDE.path.parent}'") == "No such file: '(folder)'"
    assert redactor.redact("patient MRN-99") == "patient (patient)"


def test_names_may_stay_but_folders_and_patients_never_do() -> None:
    redactor = Redactor([SLIDE])
    said = f"{SLIDE.path}: patient {SLIDE.patient_id}, {SLIDE.name}, {slug(SLIDE.name)}"
    expected = f"{SLIDE.path.name}: patient (patient), Case 4711, Case-4711"
    assert redactor.redact(said) == expected
    own = SlideRequest(Path("/ward/TCGA-1/TCGA-1-DX.svs"), "TCGA-1-DX", patient_id="TCGA-1")
    assert Redactor([own]).redact(f"{own.path}: of TCGA-1") == "TCGA-1-DX.svs: of (patient)"


def test_companion_files_are_not_named_either() -> None:
    redactor = Redactor([SLIDE], HIDDEN)
    assert redactor.redact(f"{SLIDE.path.parent}/other.dcm and Roe.mrxs: missing") == (
        "(file) and (file): missing"
    )
    assert "Roe.mrxs" in Redactor([SLIDE]).redact("Roe.mrxs: missing")


@pytest.mark.parametrize(
    "sentence",
    [
        "3 of 100 tissue tiles could not be read (one of them: Not a JPEG file).",
        "E_OUTPUT: No space left on device: /out/slide-0123456789ab/heatmap.zarr/s0/c/0",
        "slide-row-000007: the file does not say how large its pixels are (no mpp).",
    ],
)
def test_everyday_words_and_numbers_stay(sentence: str) -> None:
    slides = [
        SlideRequest(Path("/data/slides/tiles/100.svs"), "100", row=7),
        SlideRequest(Path("/mnt/run/file/row.svs"), "row", row=8),
        SlideRequest(Path("/home/out/a.svs"), "a", row=9),
    ]
    assert Redactor(slides, HIDDEN).redact(sentence) == sentence


def test_a_plain_name_goes_where_it_is_meant() -> None:
    slide = SlideRequest(Path("/data/slides/100.svs"), "100", row=7)
    redacted = Redactor([slide], HIDDEN).redact("/data/slides/100.svs: 3 of 100 tiles, 100.svs")
    assert redacted == "slide-row-000007: 3 of 100 tiles, slide-row-000007"


def test_further_terms_go_too() -> None:
    assert Redactor(terms=["DOE^JANE"]).redact("seen: DOE^JANE") == "seen: (name)"


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=4, max_size=30
)


@given(NAMES, NAMES, st.sampled_from(["plain", "repr", "JSON", "whole URL", "references"]))
def test_any_name_goes_and_redacting_twice_changes_nothing(
    name: str, folder: str, quoting: str
) -> None:
    secret, ward = f"zq{name}", f"xj{folder}"
    slide = SlideRequest(Path("/data") / ward / f"{secret}.svs", secret, row=3)
    redactor = Redactor([slide], HIDDEN)
    redacted = redactor.redact(f"cannot open {QUOTINGS[quoting](str(slide.path))}: bad")
    assert "zq" not in redacted
    assert "xj" not in redacted
    assert redactor.redact(redacted) == redacted


def test_undecodable_names_go() -> None:
    slide = SlideRequest(Path("/data/D\udcffOE/J\udcfeANE.svs"), "J\udcfeANE", row=3)
    redactor = Redactor([slide], HIDDEN)
    for text in (repr(str(slide.path)), json.dumps(str(slide.path)), on_one_line(str(slide.path))):
        redacted = redactor.redact(text)
        assert "OE" not in redacted
        assert "ANE" not in redacted


def test_one_slide_of_very_many_is_found() -> None:
    slides = [
        SlideRequest(Path(f"/mnt/wards/w{n % 50}-x/TCGA-{n:05d}-01Z.svs"), f"n{n}", row=n)
        for n in range(5000)
    ]
    slides += [
        SlideRequest(Path(f"/mnt/wards/{chr(0x4E00 + n)}患者样本.svs"), "x", row=5000 + n)
        for n in range(500)
    ]
    redactor = Redactor(slides, HIDDEN)
    assert redactor.redact(f"{slides[4321].path}: bad") == "slide-row-004321: bad"
    assert redactor.redact("TCGA-99999-01Z.svs") == "(file)"
    assert redactor.redact(ascii(str(slides[5007].path))) == "'slide-row-005007'"
    assert redactor.redact(f"{slides[5008].path.name}: bad") == "slide-row-005008: bad"


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


def test_log_records_tell_nothing_and_stay_on_one_line(told: io.StringIO) -> None:
    logger, handler = logging.getLogger("test.privacy"), logging.StreamHandler(told)
    handler.addFilter(RedactingFilter(Redactor([SLIDE], HIDDEN)))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.warning("cannot read %s at %d\n\x1b[31m", SLIDE.path, 7)
        try:
            raise ValueError(f"damaged: {SLIDE.path.name!r}")
        except ValueError:
            logger.exception("failed", stack_info=True)
    finally:
        logger.removeHandler(handler)
    lines = told.getvalue().splitlines()
    assert lines[0] == f"cannot read {SHOWN} at 7\\n\\x1b[31m"
    assert f"ValueError: damaged: '{SHOWN}'" in lines
    assert "Müller" not in told.getvalue()


@pytest.mark.parametrize("before", ["nobody", "somebody"])
def test_every_handler_is_guarded_while_it_lasts(
    told: io.StringIO, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Also where somebody, as TIAToolbox does, had warnings captured, and that was taken back."""
    was = warnings.showwarning if before == "somebody" else None
    monkeypatch.setattr(logging, "_warnings_showwarning", was)
    logger, handler = logging.getLogger("test.privacy.many"), logging.StreamHandler(told)
    logger.addHandler(handler)
    logging.root.addHandler(handler)
    try:
        with redacted_logs(Redactor([SLIDE], HIDDEN)):
            logger.warning("one %s", SLIDE.path)
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn(f"two {SLIDE.path.name}", stacklevel=1)
        guarded = told.getvalue()
        logger.warning("three %s", SLIDE.path.name)
    finally:
        logger.removeHandler(handler)
        logging.root.removeHandler(handler)
    assert f"one {SHOWN}" in guarded
    assert f"two {SHOWN}" in guarded
    assert "Müller" not in guarded
    assert f"three {SLIDE.path.name}" in told.getvalue()
