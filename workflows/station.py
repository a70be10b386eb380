"""Where steps are carried out: one station per process, with the model loaded once."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

import numpy as np

from slidetriage.errors import (
    OutputError,
    PixelsUnreadable,
    SlideError,
    SlideTriageError,
)
from slidetriage.models import Bundle, load_bundle
from slidetriage.tiling import read_tiles
from slidetriage.wsi import Slide, SlideReader, open_reader

from .features import FEATURES, create_features, write_features
from .finishing import finish_slide
from .planning import plan_slide
from .settings import Settings
from .steps import (
    STEP_NAMES,
    BatchReceipt,
    EncodeStep,
    PlanStep,
    Receipt,
    SlideFailure,
    SlidePlan,
    SlideResult,
    Step,
)

_log = logging.getLogger(__name__)

LEAST_VALID = 0.5
"""Share of a tile that must have been scanned; below it is no data rather than background."""


class Station:
    """Carries out steps and turns whatever goes wrong into a `SlideFailure`."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings = settings
        self.out = out
        self._reader: SlideReader | None = None

    @cached_property
    def bundle(self) -> Bundle:
        """The model, loaded when first needed."""
        import torch

        # Sums are split among threads, so their number decides the last bits of a feature.
        torch.set_num_threads(self.settings.threads)
        return load_bundle(self.settings.model, device=self.settings.device)

    def load(self) -> None:
        """Load the model now rather than with the first step."""
        _ = self.bundle

    def perform(self, step: Step) -> Receipt:
        """Carry out one step; never raises for a slide's sake."""
        try:
            return self._perform(step)
        except OutputError as error:
            return _failure(step, error.code, str(error), rejected=False)
        except SlideTriageError as error:
            at_fault = isinstance(error, SlideError) and not isinstance(error, PixelsUnreadable)
            stated = isinstance(step, PlanStep) and step.request.problem is not None
            return _failure(step, error.code, str(error), rejected=at_fault or stated)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            return _failure(step, "E_OUTPUT", f"{error.strerror or error}{where}", rejected=False)
        except Exception as error:  # noqa: BLE001 - the one place where a slide's failure ends
            _log.exception("step failed unexpectedly")
            message = f"{type(error).__name__}: {error}. This is a fault of slidetriage; report it."
            return _failure(step, "E_INTERNAL", message, rejected=False)

    def close(self) -> None:
        """Let go of the slide that is open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _perform(self, step: Step) -> Receipt:
        if isinstance(step, PlanStep):
            return self._plan(step)
        if isinstance(step, EncodeStep):
            return self._encode(step)
        return finish_slide(step, self.bundle, self.settings, self.out)

    def _plan(self, step: PlanStep) -> SlidePlan | SlideResult:
        bundle = self.bundle
        plan = plan_slide(step, bundle.card, bundle.identity, self.settings, self.out)
        if isinstance(plan, SlideResult):
            return plan
        create_features(
            step.staging / FEATURES,
            tiles=len(plan.tiles),
            dimension=bundle.encoder.feature_size,
            batch=self.settings.batch_tiles,
        )
        return plan

    def _encode(self, step: EncodeStep) -> BatchReceipt:
        tiles = step.batch.tiles
        pixels = read_tiles(self._reader_for(step.batch.slide), step.batch)
        usable = pixels.readable & (pixels.valid >= LEAST_VALID)
        features = np.full((len(tiles), self.bundle.encoder.feature_size), np.nan, np.float32)
        features[usable] = self.bundle.encode(pixels.images[usable])
        coverage = np.where(usable, tiles.tissue * pixels.valid, np.float32(np.nan))
        write_features(step.staging / FEATURES, step.batch.start, features, coverage)
        unreadable = int((~usable).sum())
        return BatchReceipt(step.slide_id, len(tiles), unreadable, pixels.error)

    def _reader_for(self, slide: Slide) -> SlideReader:
        """One slide is open at a time: batches of a slide follow each other."""
        if self._reader is None or self._reader.slide != slide:
            self.close()
            self._reader = open_reader(slide)
        return self._reader


def _failure(step: Step, code: str, message: str, *, rejected: bool) -> SlideFailure:
    return SlideFailure(STEP_NAMES[type(step)], code, message, rejected)
