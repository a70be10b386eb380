"""Where steps are carried out: one station per process, with the model loaded once."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import (
    OutputError,
    PixelsUnreadable,
    SlideError,
    SlideTriageError,
)
from slidetriage.models import Bundle, Device, RuntimeChoice, TileEncoder, load_bundle

from .decoding import Decoder, Nursery
from .features import FEATURES, create_features, digest_features, write_features
from .finishing import finish_slide, flag_regions
from .memory import return_freed_memory
from .planning import plan_slide
from .results import Region
from .settings import Settings
from .steps import (
    STEP_NAMES,
    BatchReceipt,
    CellStep,
    EncodeStep,
    FinishStep,
    LocateStep,
    PlanStep,
    Receipt,
    SlideFailure,
    SlidePlan,
    SlideResult,
    Step,
)
from .stored import StoredBatches, origin_of
from .surveying import TilesWanted

if TYPE_CHECKING:
    # Loaded only where nuclei are looked for.
    from .cells.station_part import CellBench

_log = logging.getLogger(__name__)

LEAST_VALID = 0.5
"""Share of a tile that must have been scanned; below it is no data rather than background."""


class TileModel(Protocol):
    """What a station needs of a model; a `Bundle` has it."""

    @property
    def encoder(self) -> TileEncoder:
        """Turns tiles into features."""
        ...

    def prepare(self) -> RuntimeChoice:
        """Compile the encoder, or tell what came of that."""
        ...

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode N x tile_px x tile_px x 3 uint8 RGB tiles to N x D features."""
        ...


Model = TypeVar("Model", bound=TileModel)


class EncodingStation(ABC, Generic[Model]):
    """Carries out steps and turns whatever goes wrong into a `SlideFailure`.

    Several threads may call `perform`. As many as `at_once` have the network at a time; the others
    read the tiles of the next batches meanwhile, so the network never waits, and no more batches
    are in memory than there are threads.
    """

    def __init__(self, settings: Settings, out: Path, *, at_once: int = 1) -> None:
        self.settings = settings
        self.out = out
        self._at_once = at_once
        self._model: Model | None = None
        self._loading = threading.Lock()
        self._nursery = Nursery()
        self._decoders: list[Decoder] = []
        self._own = threading.local()
        self._finishing = threading.Lock()
        self._compiling: threading.Thread | None = None

    @property
    def model(self) -> Model:
        """The model, loaded when first needed; it is compiled beside what is done meanwhile."""
        with self._loading:
            if self._model is None:
                import torch

                # Sums are split among threads, so their number decides the last bits of a feature.
                torch.set_num_threads(self.settings.threads)
                device = Device(
                    self.settings.device,
                    precision=self.settings.precision,
                    threads=self.settings.threads,
                    at_once=self._at_once,
                )
                self._model = self._load(device)
                self._compiling = threading.Thread(target=_compile, args=(self._model,))
                self._compiling.start()
            return self._model

    def load(self) -> None:
        """Load and compile the model now rather than with the first step."""
        self.model.prepare()

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
            # What an error says may name the slide; where no name may be told, its kind must do.
            _log.error(
                "step failed unexpectedly: %s",
                type(error).__name__,
                exc_info=not self.settings.deidentify,
            )
            message = f"{type(error).__name__}: {error}. This is a fault of slidetriage; report it."
            return _failure(step, "E_INTERNAL", message, rejected=False)

    def stop(self) -> None:
        """End all reading at once; steps that read fail, and so do those that come."""
        for decoder in self._decoders:
            decoder.close()

    def close(self) -> None:
        """End every process that was started here."""
        if self._compiling is not None:
            self._compiling.join()
        self.stop()
        self._nursery.close()

    @property
    def decoder(self) -> Decoder:
        """Reads slides for this thread."""
        decoder: Decoder | None = getattr(self._own, "decoder", None)
        if decoder is None:
            decoder = self._own.decoder = Decoder(self._nursery, self.settings)
            self._decoders.append(decoder)
        return decoder

    @abstractmethod
    def _load(self, device: Device) -> Model:
        """Load the model; called once."""

    @abstractmethod
    def _plan_slide(self, step: PlanStep) -> SlidePlan | SlideResult:
        """Plan a slide, or give the result of one that was finished before."""

    @abstractmethod
    def _finish_slide(self, step: FinishStep) -> SlideResult:
        """Make of a slide's features what the run is for, and publish it."""

    def _perform(self, step: Step) -> Receipt:
        if isinstance(step, PlanStep):
            return self._plan(step)
        if isinstance(step, EncodeStep):
            return self._encode(step)
        assert isinstance(step, FinishStep)
        with self._finishing:  # Matplotlib draws one picture at a time
            return_freed_memory()  # what the encoding of many batches left behind
            result = self._finish_slide(step)
            return_freed_memory()
            return result

    def _plan(self, step: PlanStep) -> SlidePlan | SlideResult:
        plan = self._plan_slide(step)
        return_freed_memory()
        if isinstance(plan, SlideResult) or not self.settings.scores_slides:
            return plan
        features, dimension = step.staging / FEATURES, self.model.encoder.feature_size
        stored = StoredBatches(features)
        stored.keep(
            origin_of(plan.key, plan.tiles, dimension),
            lambda: create_features(
                features,
                tiles=len(plan.tiles),
                dimension=dimension,
                batch=self.settings.batch_tiles,
            ),
            usable=lambda: digest_features(features, 0, 0),
        )
        kept = stored.recall(plan.slide_id, partial(digest_features, features))
        return replace(plan, stored=kept)

    def _encode(self, step: EncodeStep) -> BatchReceipt:
        tiles = step.batch.tiles
        pixels = self.decoder.read(step.batch, step.sha256)
        usable = pixels.readable & (pixels.valid >= LEAST_VALID)
        images = pixels.images if usable.all() else pixels.images[usable]
        features = np.full((len(tiles), self.model.encoder.feature_size), np.nan, np.float32)
        features[usable] = self.model.encode(images)
        coverage = np.where(usable, tiles.tissue * pixels.valid, np.float32(np.nan))
        store = step.staging / FEATURES
        digest = write_features(store, step.batch.start, features, coverage)
        unreadable = int((~usable).sum())
        choice = self.model.prepare()
        runtime = f"{choice.name} {choice.precision}"
        receipt = BatchReceipt(step.slide_id, len(tiles), unreadable, pixels.error, runtime)
        StoredBatches(store).note(step.batch.start, receipt, digest)
        return receipt


class Station(EncodingStation[Bundle]):
    """Triages: the head of a bundle turns a slide's features into its score and evidence."""

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.model

    def _load(self, device: Device) -> Bundle:
        return load_bundle(self.settings.model, device=device)

    def _plan_slide(self, step: PlanStep) -> SlidePlan | SlideResult:
        if self.settings.scores_slides:
            needs, model = TilesWanted.of(self.bundle.card), self.bundle.identity
        else:
            needs, model = self._cells.sight.needs, ""
        identity = model if self.settings.cells is None else self._cells.what_computes(model)
        return plan_slide(step, needs, identity, self.settings, self.out, decoder=self.decoder)

    def _finish_slide(self, step: FinishStep) -> SlideResult:
        detector = None if step.cells is None else self._cells.detector
        if not self.settings.scores_slides:
            from .cells.only import finish_cells

            assert detector is not None
            return finish_cells(step, detector, self.settings, self.out, self.decoder)
        return finish_slide(
            step,
            self.bundle,
            self.settings,
            self.out,
            decoder=self.decoder,
            detector=detector,
        )

    @cached_property
    def _cells(self) -> CellBench:
        from .cells.station_part import CellBench

        assert self.settings.cells is not None
        return CellBench(self.settings, self.settings.cells, at_once=self._at_once)

    def _perform(self, step: Step) -> Receipt:
        if isinstance(step, LocateStep):
            with self._finishing:
                regions: tuple[Region, ...] = ()
                if self.settings.scores_slides:
                    regions = flag_regions(step, self.bundle, self.settings)
                return self._cells.locate(step.plan, step.staging, regions)
        if isinstance(step, CellStep):
            return self._cells.look(step, self.decoder.read(step.batch, step.sha256))
        return super()._perform(step)


def _compile(model: TileModel) -> None:
    # What goes wrong here goes wrong again where the model is used, and is told there.
    with suppress(Exception):
        model.prepare()


def _failure(step: Step, code: str, message: str, *, rejected: bool) -> SlideFailure:
    return SlideFailure(STEP_NAMES[type(step)], code, message, rejected)
