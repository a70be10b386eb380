"""What the pixels say against a slide's nuclei: out of focus, or not stained with H&E."""

from __future__ import annotations

from dataclasses import replace

from slidetriage.models.nuclei.pixel_quality import PixelBlocks, StainShares
from slidetriage.workflows.steps import SlideResult
from slidetriage.workflows.verdicts import is_haematoxylin_eosin

MOST_BLURRED = 0.05
"""Share of the tissue looked at that may be out of focus before a person is told."""


def heed_pixels(
    result: SlideResult, blocks: PixelBlocks, *, stated: str | None = None
) -> SlideResult:
    """The slide's result with what its pixels say against it among its reasons.

    A slide whose stain is not H&E needs eyes whatever was found, one that is out of focus in
    parts cannot be cleared; where slides are not scored the reasons are all.

    Parameters
    ----------
    stated
        The slide's stain as whoever asked for it says; where slides are scored, the model's rule
        for it comes first (`verdicts.outside_range`).
    """
    doubts = list_doubts(blocks)
    scored = result.verdict != "not scored"
    if not scored and stated is not None and not is_haematoxylin_eosin(stated):
        # The words are the manifest's own and may hold anything, so they are not told.
        doubts = ["Its stain is stated, and is not H&E, which nuclei are measured by.", *doubts]
    if not doubts:
        return result
    result = replace(result, reasons=(*result.reasons, *doubts))
    strange = blocks.stain.fits_he is False
    if scored and (strange or result.verdict == "clear"):
        return replace(result, verdict="needs eyes", ruled_out=False)
    return result


def list_doubts(blocks: PixelBlocks) -> list[str]:
    """Sentences for a person; none where nothing speaks against the nuclei."""
    doubts = []
    blurred = blocks.out_of_focus_share
    if blurred is not None and blurred > MOST_BLURRED:
        doubts.append(
            f"Nuclei may be missing: {blurred:.0%} of the tissue looked at is out of focus."
        )
    if blocks.stain.fits_he is False:
        doubts.append(f"The stain does not look like H&E: {_describe(blocks.stain)}.")
    return doubts


def describe_stain(stain: StainShares) -> dict[str, object]:
    """For result.json; shares of what is strongly stained."""
    return {
        "pixels": stain.pixels,
        "brown": stain.brown,
        "pink": stain.pink,
        "blue": stain.blue,
        "fits_he": stain.fits_he,
    }


def _describe(stain: StainShares) -> str:
    if stain.is_brown:
        return (
            f"{stain.brown:.0%} of what is strongly stained is brown, as diaminobenzidine is, "
            f"and {stain.pink:.0%} pink"
        )
    return (
        f"{stain.blue:.0%} of what is strongly stained is blue or green, and {stain.pink:.0%} pink"
    )
