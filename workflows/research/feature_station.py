"""A station that leaves off before the head: slides become files of features, and no verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models import Device
from slidetriage.workflows.decoding import Decoder
from slidetriage.workflows.features import FEATURES, iterate_features, read_coverage
from slidetriage.workflows.identity import result_key, slide_id, slug
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.station import EncodingStation
from slidetriage.workflows.steps import FinishStep, PlanStep, SlidePlan, SlideResult
from slidetriage.workflows.surveying import TilesWanted
from slidetriage.workflows.unchanged import check_gaps, check_unchanged
from slidetriage.wsi import Slide

from .encoders import EncoderSource, TileModel
from .feature_files import (
    SUFFIXES,
    publish_features,
    read_features,
    read_header,
    remove_features,
    write_features,
)
from .feature_values import FeatureFacts, Form

SCHEMA = 1
"""Of the files of features; part of the key, so a new layout never passes as the old."""

NO_TISSUE = "no tissue was found that fills enough of a tile"


@dataclass(frozen=True, slots=True)
class Extraction:
    """What is to be made of slides."""

    encoder: EncoderSource
    form: Form = "zarr"
    mpp: float | None = None
    """um/px stated for slides whose file does not say."""


class FeatureStation(EncodingStation[TileModel]):
    """Carries out the steps of an extraction."""

    def __init__(
        self,
        settings: Settings,
        out: Path,
        *,
        extraction: Extraction,
        shared_names: frozenset[str] = frozenset(),
        at_once: int = 1,
    ) -> None:
        super().__init__(settings, out, at_once=at_once)
        self._extraction = extraction
        self._shared_names = shared_names

    def _load(self, device: Device) -> TileModel:
        return self._extraction.encoder(device)

    def _plan_slide(self, step: PlanStep) -> SlidePlan | SlideResult:
        return plan_features(
            step,
            self.model,
            self.settings,
            self.out,
            form=self._extraction.form,
            shared_names=self._shared_names,
            decoder=self.decoder,
        )

    def _finish_slide(self, step: FinishStep) -> SlideResult:
        return finish_features(
            step,
            self.model,
            self.settings,
            self.out,
            form=self._extraction.form,
            decoder=self.decoder,
        )


def plan_features(  # noqa: PLR0913 - what is asked, what it is for, where and by whom it is read
    step: PlanStep,
    model: TileModel,
    settings: Settings,
    out: Path,
    *,
    form: Form,
    shared_names: frozenset[str],
    decoder: Decoder,
) -> SlidePlan | SlideResult:
    """Plan one slide; one whose features are there already, and whole, gives its result.

    A file is called as its slide, for other tools go by that; `shared_names` are names that
    several slides of the run have, and get a part of the content's hash as well.
    """
    request, card = step.request, model.card
    needs = TilesWanted.of(card)
    inspected = decoder.inspect(request, needs)
    slide, digest = inspected.slide, inspected.sha256
    key = _key(request, slide, digest, model, settings, form)
    name, whole_name = slug(request.name), slide_id(request.name, digest)
    stem = whole_name if name in shared_names else name
    file, found = f"{stem}{SUFFIXES[form]}", finished_key(out / f"{stem}{SUFFIXES[form]}")
    if found != key and (out / file).exists():
        # Another slide of this name, other settings, or damage: what is there stays.
        file = f"{stem}-{key[:8]}{SUFFIXES[form]}"
        found = finished_key(out / file)
    if found == key:
        return _result(out / file, whole_name, warnings=slide.warnings)
    survey = decoder.survey(slide, digest, needs)
    step.staging.mkdir(parents=True, exist_ok=True)  # with what a run that was cut off had read
    return SlidePlan(
        slide_id=whole_name,
        sha256=digest,
        key=key,
        directory=file,
        slide=slide,
        tiles=survey.tiles,
        tissue_mm2=survey.tissue_mm2,
        signatures=inspected.signatures,
    )


def finish_features(
    step: FinishStep,
    model: TileModel,
    settings: Settings,
    out: Path,
    *,
    form: Form,
    decoder: Decoder,
) -> SlideResult:
    """Write the slide's features where they belong, by one rename.

    Raises
    ------
    PixelsUnreadable
        More tiles were unreadable than the settings allow (E_TOO_MANY_GAPS), or the file changed
        while it was read (E_UNSTABLE).
    OutputError
        The file cannot be written.
    """
    plan, target = step.plan, out / step.plan.directory
    warnings = plan.slide.warnings
    if finished_key(target) != plan.key:  # else a worker died right after publishing it
        read = ~np.isnan(read_coverage(step.staging / FEATURES))
        check_gaps(plan, read, settings, step.error)
        check_unchanged(plan, decoder)
        staged = step.staging / target.name
        remove_features(staged)  # of a worker that died while it wrote
        write_features(
            staged,
            form,
            _facts(step, model, settings, missing=int((~read).sum())),
            plan.tiles.boxes[read, :2],
            _without_gaps(step.staging / FEATURES, read),
            feature_size=model.encoder.feature_size,
        )
        if finished_key(target) is None:
            remove_features(target)  # damaged, and this is what its name stands for
        publish_features(staged, target)
    if len(step.runtimes) > 1:
        warnings = (*warnings, f"its tiles were encoded by {' and '.join(step.runtimes)}")
    return _result(target, plan.slide_id, warnings=warnings, tissue_mm2=plan.tissue_mm2)


def finished_key(path: Path) -> str | None:
    """The key of features that are whole; None where there are none, or damaged ones."""
    if not path.exists():
        return None
    try:
        read_features(path)
        return read_header(path).facts.key
    except UsageError:
        return None


def _key(
    request: SlideRequest,
    slide: Slide,
    digest: str,
    model: TileModel,
    settings: Settings,
    form: Form,
) -> str:
    made = {
        "features": SCHEMA,
        "form": form,
        "name": request.name,
        "mpp": [slide.mpp.x, slide.mpp.y],
        "tiles": [model.card.mpp, model.card.tile_px],
    }
    return result_key(digest, model.identity, {**settings.as_record(), **made})


def _facts(step: FinishStep, model: TileModel, settings: Settings, *, missing: int) -> FeatureFacts:
    slide, card = step.plan.slide, model.card
    return FeatureFacts(
        encoder=model.identity,
        tile_px=card.tile_px,
        mpp=card.mpp,
        stride_px=settings.stride_px(card.tile_px),
        slide=step.plan.slide_id.rpartition("-")[0],
        slide_mpp=(slide.mpp.x, slide.mpp.y),
        slide_px=(slide.width_px, slide.height_px),
        magnification=slide.objective_power,
        unreadable=missing,
        key=step.plan.key,
        runtimes=step.runtimes,
    )


def _without_gaps(store: Path, read: NDArray[np.bool_]) -> Iterator[NDArray[np.float32]]:
    """The features of the tiles that were read, N_i x D at a time."""
    start = 0
    for part in iterate_features(store):
        known = read[start : start + len(part)]
        start += len(part)
        yield part if known.all() else part[known]


def _result(
    path: Path, name: str, *, warnings: tuple[str, ...], tissue_mm2: float = 0.0
) -> SlideResult:
    header = read_header(path)
    missing = header.facts.unreadable
    if missing:
        total = header.tiles + missing
        warnings = (*warnings, f"{missing} of {total} tissue tiles could not be read")
    if header.tiles == 0:
        warnings = (*warnings, NO_TISSUE)
    return SlideResult(
        slide_id=name,
        state="DONE_WITH_GAPS" if missing else "DONE",
        verdict="not scored",
        score=None,
        directory=path.name,
        regions=0,
        flagged_mm2=0.0,
        tissue_mm2=tissue_mm2,
        tiles=header.tiles + missing,
        unreadable=missing,
        warnings=warnings,
    )
