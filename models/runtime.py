"""The fastest way to run a tile network that gives what the plain way gives, tried in order."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError

from .batch_size import default_batch_tiles, find_batch_tiles, is_out_of_memory, measure_speed
from .compiled import Conversion, ConversionError, convert_once
from .eager import EagerNetwork, StreamedNetwork
from .precision import (
    DRIFT_BOUNDS,
    SCORE_DRIFT_BOUND,
    Device,
    NumberFormat,
    RuntimeChoice,
    RuntimeName,
    find_precision,
)
from .probe import count_probe_tiles, measure_drift, paint_probe
from .tile_network import TileNetwork

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From N x D features to N probabilities."""


class Runner(Protocol):
    """Runs a tile network in batches of one size."""

    batch_tiles: int

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """N x H x W x 3 uint8 -> N x D."""


class Lanes:
    """Runners of the same network, each for one thread at a time; others wait for a free one."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self.batch_tiles = runners[0].batch_tiles
        self._free: SimpleQueue[Runner] = SimpleQueue()
        for runner in runners:
            self._free.put(runner)

    @contextmanager
    def borrow(self) -> Iterator[Runner]:
        """A runner that no other thread has meanwhile."""
        runner = self._free.get()
        try:
            yield runner
        finally:
            self._free.put(runner)


class Runtime:
    """Runs a tile network as fast as its device allows.

    Threads may share it: `Device.at_once` of them are served at a time, and others wait. The name
    tells networks apart whose modules look alike.
    """

    def __init__(self, network: TileNetwork, device: Device, *, name: str = "") -> None:
        if device.threads is None and device.name == "cpu":
            device = dataclasses.replace(device, threads=torch.get_num_threads())
        self.choice: RuntimeChoice | None = None
        self._name = name
        self._network = network
        self._device = device
        self._batch_tiles = device.batch_tiles
        self._halvings: list[str] = []
        self._lock = threading.RLock()
        self._lanes: Lanes | None = None
        self._size_px: tuple[int, int] | None = None
        self._score: Scorer | None = None

    def prepare(self, size_px: tuple[int, int], *, score: Scorer | None = None) -> RuntimeChoice:
        """Choose how tiles of height x width are run; at once if that is done already.

        With `score`, the probabilities that follow from the features must agree too.
        """
        with self._lock:
            score = score or self._score
            while self.choice is None or (size_px, score) != (self._size_px, self._score):
                try:
                    self._prepare(size_px, score)
                except (RuntimeError, MemoryError) as error:
                    self._halve(error)
            return self.choice

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """N x H x W x 3 uint8 -> N x D; halves the batch as long as memory runs out.

        Raises `ModelError` (E_OUT_OF_MEMORY) if memory does not suffice for one tile.
        """
        height, width = images.shape[1:3]
        while True:
            with self._lock:  # not while the network runs: the others prepare meanwhile
                self.prepare((height, width))
                lanes = self._lanes
                assert lanes is not None  # prepared
            try:
                with lanes.borrow() as runner:
                    return runner(images)
            except (RuntimeError, MemoryError) as error:
                with self._lock:
                    if lanes is self._lanes:  # else another thread has halved the batch already
                        self._halve(error)
                    elif not is_out_of_memory(error):
                        raise

    def _prepare(self, size_px: tuple[int, int], score: Scorer | None) -> None:
        probe = paint_probe(count_probe_tiles(self._network), *size_px)
        batch_tiles = self._batch_tiles or default_batch_tiles(self._network)
        # Two tiles per pass: the plain way takes the most memory.
        plain = EagerNetwork(self._network, precision="float32", batch_tiles=min(2, batch_tiles))
        reference = plain(probe)
        precision, reason = find_precision(self._device)
        said, refused = [reason], set[str]()

        @cache
        def convert() -> Conversion:
            return convert_once(
                f"{self._name} {size_px} {batch_tiles}",
                self._network,
                lambda: Conversion.of(self._network, probe, batch_tiles=batch_tiles),
            )

        for name, kind in self._list_ways(precision):
            if not refused.isdisjoint((name, kind)):
                continue
            try:
                if name == "openvino":
                    threads, at_once = self._device.threads or 1, self._device.at_once
                    runners: Sequence[Runner] = convert().compile(
                        kind, threads=threads, at_once=at_once
                    )
                else:
                    runners = self._run_eagerly(kind, probe, batch_tiles)
            except ConversionError as error:
                said.append(str(error))
                refused.add(name)
                continue
            drift, score_drift = _compare(runners[0], probe, reference, score)
            problem = _find_problem(kind, drift, score_drift)
            # The plain way comes last, and what it gives is right by definition.
            if problem is None or (name, kind) == ("torch", "float32"):
                break
            said.append(f"{name} in {kind} {problem}")
            refused.add(name if kind == "float32" else kind)
        self._lanes, self._size_px, self._score = Lanes(runners), size_px, score
        self.choice = RuntimeChoice(
            name=name,
            precision=kind,
            batch_tiles=self._lanes.batch_tiles,
            threads=self._device.threads if self._on_cpu else None,
            reason="; ".join([*said, *self._halvings]),
            drift=drift,
            score_drift=score_drift,
        )

    @property
    def _on_cpu(self) -> bool:
        return self._device.name == "cpu"

    def _list_ways(self, precision: NumberFormat) -> list[tuple[RuntimeName, NumberFormat]]:
        """Fastest first."""
        names: tuple[RuntimeName, ...] = ("openvino", "torch")
        if not self._on_cpu or self._device.runtime == "torch":
            names = ("torch",)
        kinds: tuple[NumberFormat, ...] = (precision, "float32")
        if precision == "float32":
            kinds = ("float32",)
        return [(name, kind) for name in names for kind in kinds]

    def _run_eagerly(
        self, kind: NumberFormat, probe: NDArray[np.uint8], batch_tiles: int
    ) -> Sequence[Runner]:
        if self._device.name.split(":")[0] != "cuda":
            network = EagerNetwork(self._network, precision=kind, batch_tiles=batch_tiles)
            return (network,) * self._device.at_once  # it keeps nothing between two calls

        def build(batch_tiles: int) -> Runner:
            return StreamedNetwork(self._network, precision=kind, batch_tiles=batch_tiles)

        if self._batch_tiles is None:
            batch_tiles = find_batch_tiles(
                lambda size: measure_speed(build(size), probe, batch_tiles=size),
                first=batch_tiles,
            )
        return (build(batch_tiles),)

    def _halve(self, error: RuntimeError | MemoryError) -> None:
        if not is_out_of_memory(error):
            raise error
        if not self._on_cpu and torch.cuda.is_available():
            torch.cuda.empty_cache()  # what the failed batch had is of another size
        running = self._lanes.batch_tiles if self._lanes else self._batch_tiles
        before = running or default_batch_tiles(self._network)
        if before == 1:
            raise ModelError(
                f"The memory of {self._device.name} does not suffice for one tile.",
                mend="Use a smaller model or another device, or end what else runs on it.",
                code="E_OUT_OF_MEMORY",
            ) from error
        self._batch_tiles = before // 2
        self._halvings.append(f"memory did not suffice for {before} tiles per pass")
        self.choice = self._lanes = None


def _compare(
    runner: Runner,
    probe: NDArray[np.uint8],
    reference: NDArray[np.float32],
    score: Scorer | None,
) -> tuple[float, float | None]:
    """Drift of features and of probabilities, with every place in a batch looked at."""
    rows = np.arange(max(len(probe), runner.batch_tiles)) % len(probe)
    found = runner(probe[rows])
    drift = measure_drift(found, reference[rows])
    if score is None:
        return drift, None
    return drift, float(np.abs(score(found) - score(reference)[rows]).max())


def _find_problem(kind: NumberFormat, drift: float, score_drift: float | None) -> str | None:
    bound = DRIFT_BOUNDS[kind]
    if not drift <= bound:  # so that NaN is a problem as well
        return f"drifts by {drift:.2g}, more than {bound:g}"
    if score_drift is not None and not score_drift <= SCORE_DRIFT_BOUND:
        return f"moves probabilities by {score_drift:.2g}, more than {SCORE_DRIFT_BOUND:g}"
    return None
