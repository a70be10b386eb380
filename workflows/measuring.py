"""Measures for an estimate: the network on this machine, and each slide on a few of its tiles."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from slidetriage.errors import SlideTriageError
from slidetriage.tiling import Tiles, check_masker, split_batches
from slidetriage.wsi import Slide

from .decoding import Decoder
from .estimate import (
    CLUSTER_S,
    Machine,
    Refusal,
    RunEstimate,
    SlideEstimate,
    feature_bytes,
    finish_seconds,
    result_bytes,
)
from .processes import Process, find_gpus, plan_processes
from .serial import AHEAD
from .settings import Settings
from .sources import SlideRequest, find_requests
from .steps import SlideFailure
from .surveying import TilesWanted

if TYPE_CHECKING:
    from slidetriage.models import Bundle

    from .cells.costing import CellSurveyor
    from .station import Station

Follow = Callable[[list[SlideRequest]], Iterable[SlideRequest]]
"""Hands on the slides one by one, and may show how many are done."""

SAMPLE_TILES = 64
SAMPLE_S = 1.0
"""A sample is so many tiles, or as many as are read in so many seconds."""

PIECE_TILES = 8
"""Tiles read between two looks at the clock: a row of a block of neighbours."""

NETWORK_BATCHES = 5
NETWORK_S = 1.5
"""The network gets so many batches, or as many as it does in so many seconds."""

_HASHED_BYTES = 1 << 24


def estimate_run(
    slides: Iterable[str | Path],
    settings: Settings,
    *,
    mpp: float | None = None,
    workers: int | None = None,
    boot_s: float = 0.0,
    follow: Follow = iter,
) -> RunEstimate:
    """Estimate what `triage` would take with Dask workers on this machine; nothing is written.

    Parameters
    ----------
    slides, settings, mpp
        As for `triage`.
    workers
        Processes; as many as `triage` would start if not given.
    boot_s
        Seconds this process took to start and to import, as that of a run will.

    Raises
    ------
    UsageError, ModelError
        What was asked for makes no sense. A slide that cannot be planned is a row instead.
    """
    requests = find_requests(slides, mpp=mpp)
    check_masker(settings.masker)
    gpus = find_gpus() if settings.device != "cpu" else ()
    processes = plan_processes(settings.device, workers, gpus=gpus)
    from . import distribution  # noqa: F401 - the driver has it in memory, and no model

    driver_bytes = resident_bytes()
    start = perf_counter()
    from .station import Station

    with closing(Station(settings, Path())) as station:
        station.load()
        start_s = boot_s + (perf_counter() - start) + CLUSTER_S  # workers import beside the command
        return _estimate(
            station, requests, processes, start_s=start_s, driver_bytes=driver_bytes, follow=follow
        )


def _estimate(
    station: Station,
    requests: list[SlideRequest],
    processes: tuple[Process, ...],
    *,
    start_s: float,
    driver_bytes: int,
    follow: Follow,
) -> RunEstimate:
    settings, bundle = station.settings, station.bundle
    machine = Machine(
        workers=len(processes),
        steps_at_once=processes[0].threads,
        encodings_at_once=processes[0].threads - AHEAD if settings.device == "cpu" else 1,
        cores=CPU_COUNT,
        network_tiles_s=measure_network(bundle, settings.batch_tiles),
        threads=settings.threads if settings.device == "cpu" else 0,
        start_s=start_s,
        worker_bytes=resident_bytes(),
        driver_bytes=driver_bytes,
    )
    surveyor = Surveyor(bundle, settings, machine, station.decoder)
    return RunEstimate(
        bundle.card, settings, machine, tuple(surveyor.look(each) for each in follow(requests))
    )


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def process_age_s() -> float:
    """Seconds since this process was started."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # starttime, see proc(5)
    return float(Path("/proc/uptime").read_text().split()[0]) - started


def measure_network(bundle: Bundle, batch_tiles: int) -> float:
    """Tiles per second of the network on noise, the median of a few batches."""
    side = bundle.card.tile_px
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (batch_tiles, side, side, 3), dtype=np.uint8)
    bundle.encode(images[:1])  # the first pass is slower
    took: list[float] = []
    while len(took) < NETWORK_BATCHES and sum(took) < NETWORK_S:
        start = perf_counter()
        bundle.encode(images)
        took.append(perf_counter() - start)
    return batch_tiles / median(took)


def measure_reading(decoder: Decoder, slide: Slide, tiles: Tiles) -> tuple[float, bool]:
    """Tiles per second that one thread reads from the middle of the slide's tissue.

    The flag says whether the sample was as large as is wanted.
    """
    first = len(tiles) // 2 // SAMPLE_TILES * SAMPLE_TILES
    sample = tiles[first : first + SAMPLE_TILES]
    if len(sample) < SAMPLE_TILES:
        sample = tiles[max(0, len(tiles) - SAMPLE_TILES) :]
    pieces = split_batches(slide, sample, PIECE_TILES)
    done, took = 0, 0.0
    for piece in pieces:
        start = perf_counter()
        decoder.read(piece, None)
        took += perf_counter() - start
        done += len(piece.tiles)
        if took > SAMPLE_S:
            break
    return done / took, done == SAMPLE_TILES or took > SAMPLE_S


def measure_hashing() -> float:
    """Bytes per second of sha256."""
    block = bytes(_HASHED_BYTES)
    start = perf_counter()
    hashlib.sha256(block).digest()
    return len(block) / (perf_counter() - start)


def picture_entropy(picture: NDArray[np.uint8]) -> float:
    """Bytes that a picture cannot be packed below if each pixel is told by its neighbour's."""
    green = picture[..., 1].astype(np.int16)
    counts = np.bincount((np.diff(green, axis=1) & 255).ravel(), minlength=256)
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log2(share)).sum()) / 8 * picture.size


class Surveyor:
    """Looks at slides one after the other; slides alike in format and levels read alike."""

    def __init__(
        self, bundle: Bundle, settings: Settings, machine: Machine, decoder: Decoder
    ) -> None:
        self._bundle = bundle
        self._settings = settings
        self._machine = machine
        self._decoder = decoder
        self._cells = self._open_cells()
        self._needs = TilesWanted.of(bundle.card)
        if self._cells is not None and not settings.scores_slides:
            self._needs = self._cells.needs
        self._hash_bytes_s = measure_hashing()
        self._reading: dict[object, float] = {}

    def look(self, request: SlideRequest) -> SlideEstimate | Refusal:
        """Plan the slide as a run does, and time a sample of its tiles."""
        try:
            return self._look(request)
        except SlideTriageError as error:
            return Refusal(request, SlideFailure("plan", error.code, str(error), rejected=True))
        except OSError as error:
            message = f"{request.path.name}: {error.strerror or error}"
            return Refusal(request, SlideFailure("plan", "E_OUTPUT", message, rejected=False))

    def _open_cells(self) -> CellSurveyor | None:
        cells = self._settings.cells
        if cells is None:
            return None
        from .cells.costing import CellSurveyor

        return CellSurveyor(self._settings, cells, self._machine, self._decoder)

    def _look(self, request: SlideRequest) -> SlideEstimate:
        start = perf_counter()
        slide = self._decoder.open(request, self._needs)
        survey = self._decoder.survey(slide, None, self._needs)
        plan_s = perf_counter() - start
        kind = _kind(slide)
        cells = None if self._cells is None else self._cells.look(request, slide, survey, kind)
        count = len(survey.tiles) if self._settings.scores_slides else 0
        reading = self._reading_tiles_s(slide, survey.tiles) if count else None
        batches = -(-count // self._settings.batch_tiles)
        hash_s = sum(path.stat().st_size for path in slide.files) / self._hash_bytes_s
        features = feature_bytes(count, self._bundle.encoder.feature_size)
        published = result_bytes(count, picture_entropy(survey.picture))
        return SlideEstimate(
            request=request,
            slide=slide,
            tissue_mm2=survey.tissue_mm2,
            tiles=count,
            reading_tiles_s=reading,
            plan_s=plan_s + hash_s,
            encode_s=count / self._machine.tiles_s(reading, batches) if reading else 0.0,
            finish_s=finish_seconds(count),
            thumbnail_px=survey.thumbnail_px,
            result_bytes=published + (features if self._settings.keep_features else 0),
            staging_bytes=features + survey.picture.nbytes + published,
            cells=cells,
        )

    def _reading_tiles_s(self, slide: Slide, tiles: Tiles) -> float:
        kind = _kind(slide)
        known = self._reading.get(kind)
        if known is not None:
            return known
        self._decoder.read(next(split_batches(slide, tiles[:1], 1)), None)  # opens the file
        speed, enough = measure_reading(self._decoder, slide, tiles)
        if enough:
            self._reading[kind] = speed
        return speed


def _kind(slide: Slide) -> object:
    """What slides that are read at one speed have in common."""
    levels = tuple((round(level.downsample), level.averaged) for level in slide.levels)
    return slide.reader, slide.vendor, round(slide.mpp.x, 2), levels
