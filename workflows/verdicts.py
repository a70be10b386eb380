"""Flag, clear, or needs eyes: what a slide's score allows to be said, and why no more."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slidetriage.models import Card
from slidetriage.models.trust import Verdict

NO_TISSUE = (
    "no tissue was found that fills enough of a tile: look at the slide, check its mpp, "
    "and try another masker with --tissue or less with --min-tissue"
)

HAEMATOXYLIN_EOSIN = frozenset(
    f"{dye}{link}eosin" for dye in ("haematoxylin", "hematoxylin") for link in ("", "and", "und")
) | {"he", "hande"}
"""Spellings of one stain, in small letters and without signs."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the reasons why a person must look; none where the score says enough."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    ruled_out: bool = False
    """Whether the slide needs no look at the sensitivity that the card's rule-out keeps."""


def outside_range(card: Card, *, vendor: str, stain: str | None) -> tuple[str, ...]:
    """In which ways a slide is not what the card says its model was made for.

    Parameters
    ----------
    vendor
        Of the scanner, as OpenSlide calls it.
    stain
        As whoever asked for the slide states it; None where nobody did.
    """
    found = []
    if stain is not None and _plain_stain(stain) != _plain_stain(card.stain):
        # The words are the manifest's own and may hold anything, so they are not told.
        found.append(f"its stain is stated, and is not {card.stain}, which the model was made for")
    if card.vendors is not None and vendor not in card.vendors:
        made_for = " or ".join(card.vendors) or "none"
        found.append(f"the model was made from slides of {made_for}, and this is of {vendor}")
    return tuple(found)


def is_haematoxylin_eosin(stain: str) -> bool:
    """Whether a stain's name is one of haematoxylin and eosin."""
    return _plain_stain(stain) == "he"


def _plain_stain(name: str) -> str:
    """A stain's name without what spellings differ in.

    >>> _plain_stain("H&E") == _plain_stain("Haematoxylin and Eosin") == _plain_stain("he")
    True
    """
    letters = re.sub(r"[^a-z0-9]", "", name.casefold())
    return "he" if letters in HAEMATOXYLIN_EOSIN else letters


def judge(
    card: Card,
    score: float | None,
    novelty: float | None,
    *,
    missing: int,
    strange: tuple[str, ...] = (),
) -> Judgement:
    """What may be said of a slide.

    The conformal rule of the card decides between flag, clear and needs eyes; without one the
    slide threshold between flag and clear. What the model cannot know forces `needs eyes`: a slide
    without tissue, one unlike those it learned from or stained or scanned in another way, and one
    it would clear without having read all of it.

    Parameters
    ----------
    score
        The slide's calibrated probability; None where no tissue was found.
    novelty
        The slide's distance from what the model learned from; None where the card has no limit.
    missing
        Tissue tiles that could not be read.
    strange
        In which ways the slide is not what the model was made for (see `outside_range`).
    """
    if score is None:
        return Judgement("needs eyes", (NO_TISSUE,))
    verdict, reasons = _by_score(card, score)
    if card.novelty is not None and novelty is not None and novelty > card.novelty.limit:
        verdict = "needs eyes"
        reasons.append(
            f"it is unlike the slides the model learned from: distance {novelty:.2f}, where "
            f"{card.novelty.kept:.0%} of familiar slides stay within {card.novelty.limit:.2f}"
        )
    if strange:
        verdict = "needs eyes"
        reasons.extend(strange)
    if missing and verdict == "clear":
        verdict = "needs eyes"
        reasons.append("not all of its tissue was read, so it cannot be cleared")
    below = card.rule_out is not None and score < card.rule_out.value
    return Judgement(verdict, tuple(reasons), ruled_out=below and verdict == "clear")


def _by_score(card: Card, score: float) -> tuple[Verdict, list[str]]:
    if card.conformal is None:
        return ("flag" if score >= card.slide_threshold.value else "clear"), []
    verdict = card.conformal.triage([score])[0]
    if verdict != "needs eyes":
        return verdict, []
    negative, positive = card.conformal.sets([score])[0]
    fits = "both classes" if negative and positive else "neither class"
    share = f"{card.conformal.error_rate:.0%}"
    return verdict, [f"its score of {score:.3f} fits {fits} at an error rate of {share}"]
