"""Verdicts: the conformal rule decides, and what the model cannot know goes to a person."""

from __future__ import annotations

import dataclasses

import pytest

from slidetriage.models import Card, NoveltyCard, OperatingPoint, load_bundle
from slidetriage.models.trust import ConformalRule
from slidetriage.workflows.verdicts import judge, outside_range


@pytest.fixture(scope="module")
def card() -> Card:
    point = OperatingPoint(0.05, "99 %", "100 slides", 0.99, 0.3)
    return dataclasses.replace(
        load_bundle("breast-idc-scout").card,
        slide_threshold=dataclasses.replace(point, value=0.4),
        rule_out=point,
        # Negative in the set up to 0.6, positive from 0.2: between the two, both.
        conformal=ConformalRule((0.4, 0.2), 0.1, True, (50, 50)),
        novelty=NoveltyCard(1.5, 0.5, 0.95, 2.0, "20 slides"),
    )


@pytest.mark.parametrize(
    ("score", "verdict", "ruled_out"),
    [
        (0.01, "clear", True),
        (0.1, "clear", False),
        (0.3, "needs eyes", False),
        (0.59, "needs eyes", False),
        (0.61, "flag", False),
        (1.0, "flag", False),
    ],
)
def test_the_conformal_rule_decides(
    card: Card, score: float, verdict: str, ruled_out: bool
) -> None:
    found = judge(card, score, 1.0, missing=0)
    assert (found.verdict, found.ruled_out) == (verdict, ruled_out)
    assert bool(found.reasons) is (verdict == "needs eyes")
    if found.reasons:
        assert "both classes at an error rate of 10%" in found.reasons[0]


def test_a_rule_that_fits_neither_class_says_so(card: Card) -> None:
    strict = dataclasses.replace(card, conformal=ConformalRule((0.8, 0.8), 0.1, True, (50, 50)))
    assert "neither class" in judge(strict, 0.5, 1.0, missing=0).reasons[0]


def test_without_a_rule_the_threshold_decides(card: Card) -> None:
    plain = dataclasses.replace(card, conformal=None, rule_out=None, novelty=None)
    assert judge(plain, 0.4, None, missing=0).verdict == "flag"
    below = judge(plain, 0.39, None, missing=0)
    assert (below.verdict, below.reasons, below.ruled_out) == ("clear", (), False)


@pytest.mark.parametrize("score", [0.01, 0.3, 0.9])
def test_a_strange_slide_needs_eyes_whatever_its_score(card: Card, score: float) -> None:
    found = judge(card, score, 1.51, missing=0)
    assert found.verdict == "needs eyes"
    assert not found.ruled_out
    assert "distance 1.51, where 95% of familiar slides stay within 1.50" in found.reasons[-1]
    assert judge(card, 0.9, 1.5, missing=0).verdict == "flag"
    no_limit = dataclasses.replace(card, novelty=None)
    assert judge(no_limit, 0.9, 1.51, missing=0).verdict == "flag"


def test_what_was_not_read_is_not_cleared(card: Card) -> None:
    found = judge(card, 0.01, 1.0, missing=1)
    assert (found.verdict, found.ruled_out) == ("needs eyes", False)
    assert "not all of its tissue was read" in found.reasons[0]
    assert judge(card, 0.9, 1.0, missing=1).verdict == "flag"


@pytest.mark.parametrize("stain", [None, "H&E", "h and e", "HE", "Hematoxylin & Eosin"])
def test_a_slide_like_those_of_the_model_has_nothing_strange(card: Card, stain: str | None) -> None:
    assert outside_range(card, vendor="aperio", stain=stain) == ()
    known = dataclasses.replace(card, vendors=("aperio", "hamamatsu"))
    assert outside_range(known, vendor="hamamatsu", stain=stain) == ()


def test_another_stain_or_scanner_needs_eyes(card: Card) -> None:
    known = dataclasses.replace(card, vendors=("aperio", "hamamatsu"))
    strange = outside_range(known, vendor="philips", stain="CD8 of Jane Doe")
    assert len(strange) == 2
    assert "is not H&E" in strange[0]
    assert "Jane" not in strange[0], "a manifest's cell may hold anything"
    assert "aperio or hamamatsu, and this is of philips" in strange[1]
    for score in (0.01, 0.9):
        found = judge(card, score, 1.0, missing=0, strange=strange)
        assert (found.verdict, found.ruled_out) == ("needs eyes", False)
        assert found.reasons == strange


def test_no_tissue_needs_eyes(card: Card) -> None:
    found = judge(card, None, None, missing=0)
    assert found.verdict == "needs eyes"
    assert "no tissue" in found.reasons[0]
    assert not found.ruled_out
