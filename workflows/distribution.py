"""The Dask engine: the same steps on worker processes, on this machine or on a cluster.

Steps go out and receipts come back; pixels, features and the model never pass the scheduler. Each
worker loads the model once, reads its own pixels and writes its own chunks.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from itertools import count
from pathlib import Path

import dask
from distributed import Client, LocalCluster, Security, WorkerPlugin, as_completed, get_worker
from distributed.scheduler import KilledWorker

from .serial import Engine
from .settings import Settings
from .station import Station
from .steps import STEP_NAMES, Receipt, SlideFailure, Step

PLUGIN = "slidetriage"

STEPS_PER_WORKER = 2
"""One in work and one at hand, so that a worker never waits for the driver."""

DEATHS_ALLOWED = 1
"""Times a step may kill its worker before its slide is given up."""


class StationPlugin(WorkerPlugin):
    """Gives each worker its station; the model is loaded when the worker starts."""

    name = PLUGIN

    def __init__(self, settings: Settings, out: Path, *, private: bool) -> None:
        self.settings = settings
        self.out = out
        self.private = private
        """Whether the workers belong to this run, and end when it ends."""
        self.station: Station | None = None

    def setup(self, worker: object) -> None:
        """Load the model, so that the first step is not late."""
        del worker
        if self.private and threading.current_thread() is threading.main_thread():
            # A terminal sends Ctrl-C to every process; the run itself ends its workers.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.station = Station(self.settings, self.out)
        self.station.load()

    def teardown(self, worker: object) -> None:
        """Let go of the open slide."""
        del worker
        if self.station is not None:
            self.station.close()


def perform_here(step: Step) -> Receipt:
    """Carry out a step on the worker that this is called on."""
    plugin = get_worker().plugins[PLUGIN]
    if not isinstance(plugin, StationPlugin) or plugin.station is None:
        raise TypeError(f"the worker's plugin {PLUGIN!r} is not slidetriage's")
    return plugin.station.perform(step)


class DaskEngine:
    """Carries out steps on the workers of a Dask scheduler."""

    def __init__(
        self,
        settings: Settings,
        out: Path,
        *,
        workers: int | None = None,
        address: str | None = None,
    ) -> None:
        # Dask tells of every connection made and closed; what matters comes back as a receipt.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS_ALLOWED}):
            self._cluster = None if address else _local_cluster(workers or os.cpu_count() or 1)
        target = address or self._cluster
        self._client = Client(target, timeout=30)
        self._client.register_plugin(StationPlugin(settings, out, private=address is None))
        self._steps: dict[str, Step] = {}
        self._done = as_completed()
        self._number = count()

    @property
    def slots(self) -> int:
        """Two for each worker that there is now."""
        return STEPS_PER_WORKER * max(1, len(self._client.nthreads()))

    def submit(self, step: Step) -> None:
        """Send the step to any worker; steps sent first are done first."""
        number = next(self._number)
        key = f"{type(step).__name__}-{number}"
        future = self._client.submit(perform_here, step, key=key, pure=False, priority=-number)
        self._steps[key] = step
        self._done.add(future)

    def next_done(self) -> tuple[Step, Receipt]:
        """Wait for any step; one that killed its worker twice gives a failure."""
        future = next(self._done)
        step = self._steps.pop(future.key)
        error = future.exception()
        if error is None:
            receipt: Receipt = future.result()
        elif isinstance(error, KilledWorker):
            receipt = SlideFailure(
                STEP_NAMES[type(step)],
                "E_CRASH",
                "Reading this slide killed its worker twice; it is probably damaged. "
                "Copy it again, or convert it to a pyramidal TIFF.",
                rejected=True,
            )
        else:
            raise error
        future.release()
        return step, receipt

    def close(self) -> None:
        """Stop the workers that were started here, and leave those of others alone."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _local_cluster(workers: int) -> LocalCluster:
    """Workers on this machine that nobody else can reach: loopback only, with throw-away TLS."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        protocol="tls",
        security=Security.temporary(),
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    )


_proof: type[Engine] = DaskEngine
