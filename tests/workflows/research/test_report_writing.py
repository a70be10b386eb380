"""The report as files: complete, well-formed, alone, and deaf to hostile names."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from simulated_predictions import simulate
from slidetriage.errors import OutputError, UsageError
from slidetriage.models.evaluation import RULE
from slidetriage.workflows.research.cohort import Column, ExcludedRow
from slidetriage.workflows.research.predictions import Predictions
from slidetriage.workflows.research.report_values import ReportFigures
from slidetriage.workflows.research.report_writing import evaluate
from slidetriage.workflows.settings import RESEARCH_USE

KINDS = {
    "binary": {},
    "classes": {"classes": ("a", "b", "c")},
    "number": {"kind": "number"},
    "survival": {"kind": "survival"},
}
SECTIONS = {
    "binary": ("discrimination", "operating-points", "calibration", "abstention"),
    "classes": ("discrimination", "calibration", "abstention"),
    "number": ("agreement",),
    "survival": ("survival", "cox"),
}
PLOTS = {"binary": 6, "classes": 3, "number": 2, "survival": 2}
ALWAYS = ("summary", "limits", "data", "excluded", "groups", "methods")
FACTS = {"Question": "Is there a tumour?", "Head": "gated_attention"}


def report(p: Predictions, out: Path, title: str = "A study") -> tuple[ReportFigures, str]:
    figures = evaluate(p, out, title=title, facts=FACTS, repeats=20)
    return figures, (out / "report.html").read_text()


def parse(page: str) -> ElementTree.Element:
    """As XML: every tag closed, every attribute quoted, nothing unescaped."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))


def pictures(root: ElementTree.Element) -> list[bytes]:
    found = []
    for image in root.iter("img"):
        head, _, body = image.attrib["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        assert image.attrib["alt"]
        found.append(base64.b64decode(body, validate=True))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_has_every_section_and_needs_nothing_beside_it(kind: str, tmp_path: Path) -> None:
    figures, page = report(simulate(**KINDS[kind]), tmp_path)  # type: ignore[arg-type]  # a table of arguments
    root = parse(page)
    here = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert here == {*ALWAYS, *SECTIONS[kind]}
    text = " ".join("".join(root.itertext()).split())
    for words in ("A study", "Is there a tumour?", "gated_attention", RESEARCH_USE, RULE):
        assert words in text
    for sentence in (*figures.said, *figures.limits):
        assert sentence in text
    assert "has no 'label'" in text
    assert not list(root.iter("script"))
    assert not list(root.iter("link"))
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r'src="[^"]*"', "", page))
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html"}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_whole_and_of_themselves(kind: str, tmp_path: Path) -> None:
    _, page = report(simulate(**KINDS[kind]), tmp_path)  # type: ignore[arg-type]  # a table of arguments
    drawn = pictures(parse(page))
    assert len(drawn) == PLOTS[kind]
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert sum(1 for _ in root.iter("{http://www.w3.org/2000/svg}path")) > 10
        links = [
            value
            for element in root.iter()
            for name, value in element.attrib.items()
            if name.endswith("href")
        ]
        assert all(link.startswith(("#", "data:")) for link in links)


def test_hostile_names_are_text_and_no_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    p = simulate(classes=("no", f"{evil}&\"'"))
    values = np.where(p.site == "0", "{{ 7 * 7 }}", "b")
    p = replace(
        p,
        site=np.where(p.site == "0", f'"><img src=x onerror=alert(2)>{evil}', p.site),
        subgroups=(Column(f"{evil} $x_$", "category", values),),
        excluded=(ExcludedRow(2, "s", "p", f"has {evil}"),),
    )
    _, page = report(p, tmp_path, title=f"{evil} {{{{ 7 * 7 }}}} \u6f22")
    root = parse(page)
    assert not list(root.iter("script"))
    assert "<script" not in page
    assert all(image.attrib["src"].startswith("data:") for image in root.iter("img"))
    assert not [name for e in root.iter() for name in e.attrib if name.startswith("on")]
    text = "".join(root.itertext())
    assert text.count(evil) > 5
    assert "{{ 7 * 7 }}" in text
    assert "49 \u6f22" not in text
    for svg in pictures(root):
        assert b"<script" not in svg


def test_the_json_says_what_the_page_was_made_of(tmp_path: Path) -> None:
    figures, _ = report(simulate(), tmp_path)
    plain = json.loads((tmp_path / "report.json").read_text())
    assert plain["schema_version"] == 1
    assert plain["notice"] == RESEARCH_USE
    assert ReportFigures.from_json(plain).to_json() == figures.to_json()


def test_the_same_predictions_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        report(simulate(), tmp_path / name)
    for name in ("report.html", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_report_without_columns_or_head_says_so(tmp_path: Path) -> None:
    p = replace(simulate(validation=False), site=None, subgroups=(), excluded=())
    evaluate(p, tmp_path, title="Bare", repeats=20)
    text = (tmp_path / "report.html").read_text()
    assert "not stated" in text
    assert "neither sites nor columns" in text
    assert "Not measured: a fold has too few validation patients." in text
    assert "(optimistic)" in text


def test_nothing_is_written_where_nothing_can_be_measured(tmp_path: Path) -> None:
    p = simulate()
    only = p.take(p.rows("fold 0", "validation"))
    with pytest.raises(UsageError, match="test part"):
        evaluate(only, tmp_path / "out", title="t")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder cannot be made"):
        evaluate(simulate(patients=20), tmp_path / "file" / "out", title="t", repeats=5)


def only(p: Predictions, kept: np.ndarray) -> Predictions:
    return p.take(np.flatnonzero(kept))


def test_tables_at_the_edge_still_make_a_report(tmp_path: Path) -> None:
    p, survival, number = simulate(), simulate("survival"), simulate("number")
    several = simulate(classes=("a", "b", "c"))
    nothing = Column("age", "number", np.full(len(p), np.nan))
    constant = Column("age", "number", np.full(len(survival), 50.0))
    first = survival.rows("fold 0", "test")
    edges = {
        "a fold without positives": only(
            p, (p.part == "validation") | (p.fold != "fold 0") | (p.label == 0)
        ),
        "validation without positives": only(
            p, (p.part == "test") | (p.fold != "fold 0") | (p.label == 0)
        ),
        "one score": replace(p, score=np.full((len(p), 2), 0.5)),
        "perfect scores": replace(p, score=np.eye(2)[np.asarray(p.label, int)]),
        "a column that says nothing": replace(p, subgroups=(nothing,)),
        "a class that is not tested": only(
            several, (several.part != "test") | (several.label != 2)
        ),
        "one risk": replace(survival, score=np.zeros((len(survival), 1))),
        "no time": replace(survival, time=np.zeros(len(survival))),
        "a constant covariate": replace(survival, subgroups=(constant,)),
        "three patients": survival.take(first[np.argsort(~survival.event[first])][:3]),  # type: ignore[index]  # of survival
        "one number": replace(number, score=np.ones((len(number), 1))),
    }
    for name, table in edges.items():
        _, page = report(table, tmp_path / name, name)
        assert name in "".join(parse(page).itertext())


def test_one_patient_has_figures_without_intervals(tmp_path: Path) -> None:
    p = simulate(validation=False)
    own = p.rows("fold 0", "test")
    both = own[[np.flatnonzero(p.label[own] == c)[0] for c in (0, 1)]]  # type: ignore[index]  # of classes
    one = replace(p.take(both), patient=np.array(["P", "P"]))
    figures, page = report(one, tmp_path)
    assert figures.binary is not None
    assert figures.binary.auc.value in (0.0, 0.5, 1.0)
    assert np.isnan(figures.binary.auc.low)
    assert "nan" not in "".join(parse(page).itertext()).lower().split()


def test_survival_in_which_nobody_can_be_compared_says_so(tmp_path: Path) -> None:
    p = simulate("survival")
    figures, _ = report(replace(p, time=np.zeros(len(p)), event=np.ones(len(p), bool)), tmp_path)
    assert figures.survival is not None
    assert figures.survival.concordance is None
    assert "No two patients of a fold can be compared: there is no concordance." in figures.limits
