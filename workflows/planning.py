"""A request becomes a plan, unless its result is there already."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from slidetriage.wsi import Slide

from .decoding import Decoder
from .identity import result_key, slide_id
from .manifest import verified_key
from .records import read_result
from .settings import Settings
from .sources import SlideRequest, public_name
from .steps import PlanStep, SlidePlan, SlideResult
from .surveying import TilesWanted

PICTURE_FILE = "picture.npy"


def plan_slide(
    step: PlanStep,
    needs: TilesWanted,
    identity: str,
    settings: Settings,
    out: Path,
    *,
    decoder: Decoder,
) -> SlidePlan | SlideResult:
    """Plan one slide; leaves its picture in the staging folder.

    A slide that was finished before, with the same content, model and settings, gives its result.

    Raises
    ------
    SlideTriageError
        The slide is missing, damaged, without scale, or too coarse for the model.
    """
    request = step.request
    found = decoder.inspect(request, needs)
    slide, digest = found.slide, found.sha256
    name = slide_id(public_name(request, settings), digest)
    key = _key(request, slide, digest, identity, settings)
    directory = name
    if (out / name).exists() and verified_key(out / name) != key:
        # Another model or other settings: the old result stays, the new one stands beside it.
        directory = f"{name}-{key[:8]}"
    if verified_key(out / directory) == key:
        return read_result(out / directory)
    survey = decoder.survey(slide, digest, needs)
    step.staging.mkdir(parents=True, exist_ok=True)  # with what a run that was cut off had read
    picture = BytesIO()  # of a short write to a file, NumPy does not say that the disk is full
    np.save(picture, survey.picture)
    (step.staging / PICTURE_FILE).write_bytes(picture.getbuffer())
    return SlidePlan(
        slide_id=name,
        sha256=digest,
        key=key,
        directory=directory,
        slide=slide,
        tiles=survey.tiles,
        tissue_mm2=survey.tissue_mm2,
        signatures=found.signatures,
        stain=request.stain,
    )


def _key(
    request: SlideRequest, slide: Slide, digest: str, identity: str, settings: Settings
) -> str:
    stated: dict[str, object] = {
        "mpp": [slide.mpp.x, slide.mpp.y],
        "mpp_source": slide.mpp.source,
    }
    if request.stain is not None:
        stated["stain"] = request.stain.encode("utf-8", "backslashreplace").decode()
    # A name need not be Unicode, and the key is of JSON.
    name = public_name(request, settings).encode("utf-8", "backslashreplace").decode()
    return result_key(digest, identity, {**settings.as_record(), **stated, "name": name})
