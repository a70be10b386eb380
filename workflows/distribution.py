"""The Dask engine: the same steps on worker processes, on this machine or on a cluster.

Steps go out and receipts come back; pixels, features and the model never pass the scheduler. Each
worker loads the model once, reads its own pixels and writes its own chunks.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import ExitStack, suppress
from itertools import count
from math import inf
from pathlib import Path
from queue import Empty, Queue
from time import monotonic

import dask
from dask.system import CPU_COUNT
from distributed import (
    Client,
    Future,
    Security,
    SpecCluster,
)
from distributed.scheduler import KilledWorker

from slidetriage.errors import SlideTriageError, UsageError

from .opening import OpenStation, open_triage
from .processes import CLOSED_WITHIN_S, find_gpus, plan_processes, start_cluster
from .serial import Engine
from .settings import Settings
from .steady_clock import keep_time_steadily
from .steps import STEP_NAMES, Receipt, SlideFailure, Step
from .template import METHOD, start_template
from .worker_plugin import StationPlugin, perform_here

_log = logging.getLogger(__name__)

REACHED_WITHIN_S = 30.0
"""Seconds within which a scheduler must answer."""

STEPS_AT_HAND = 1
"""Steps that wait at each worker beside those in work, so that it never waits for the driver."""

WORKERS_KNOWN_S = 1.0
"""Seconds for which the number of workers is taken as known; asking costs a millisecond."""

LOOKED_AFTER_S = 2.0
"""Seconds without a receipt after which it is seen whether there is any worker at all."""

GONE_S = 60.0
"""Seconds without any worker after which a run gives up those of its own, and says so of others."""

DEATHS_ALLOWED = 1
"""Times the worker of a step may die before the step is held to be the cause, and tried alone."""


class DaskEngine:
    """Carries out steps on the workers of a Dask scheduler."""

    def __init__(
        self,
        settings: Settings,
        out: Path,
        *,
        workers: int | None = None,
        address: str | None = None,
        cores: int = CPU_COUNT,
        station: OpenStation = open_triage,
    ) -> None:
        # Dask tells of every connection made and closed; what matters comes back as a receipt.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        keep_time_steadily()
        self._cluster = None
        self._configured = ExitStack()
        with ExitStack() as unless_joined:
            unless_joined.callback(self._configured.close)
            if address is None:
                self._cluster = self._start_workers(settings, workers, cores)
                unless_joined.callback(self._cluster.close)
            self._client = _join(self._cluster) if address is None else connect(address)
            plugin = StationPlugin(settings, out, private=address is None, station=station)
            self._run = plugin.name
            unless_joined.callback(self.close)
            _register(self._client, plugin)
            unless_joined.pop_all()
        self._steps: dict[str, Step] = {}
        self._done: Queue[Future[Receipt]] = Queue()
        self._none_since: float | None = None
        self._number = count()
        self._suspects: deque[Step] = deque()
        self._alone: Step | None = None
        self._slots, self._asked = 0, -inf

    def _start_workers(self, settings: Settings, workers: int | None, cores: int) -> SpecCluster:
        """Workers of this machine, forked from the template."""
        gpus = find_gpus() if settings.device.startswith("cuda") else ()
        processes = plan_processes(settings.device, workers, gpus=gpus, cores=cores)
        start_template(cells=settings.cells is not None)
        # Until the end of the run: the nannies start workers anew by it.
        self._configured.enter_context(
            dask.config.set({"distributed.worker.multiprocessing-method": METHOD})
        )
        with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS_ALLOWED}):
            try:
                return start_cluster(processes)
            except (OSError, EOFError, RuntimeError) as error:
                raise _not_started(error) from error

    @property
    def slots(self) -> int:
        """Steps in work at every worker that there is now, and some more at hand.

        None while a step is suspected of killing its workers: it is tried when no other is there.
        """
        if self._suspects or self._alone is not None:
            return 0
        if monotonic() - self._asked > WORKERS_KNOWN_S:
            try:
                threads = self._client.nthreads()
            except OSError as error:
                raise _lost() from error
            self._slots = sum(threads.values()) + STEPS_AT_HAND * max(1, len(threads))
            self._asked = monotonic()
        return max(2, self._slots)

    def submit(self, step: Step) -> None:
        """Send the step to any worker; steps sent first are done first."""
        number = next(self._number)
        key = f"{type(step).__name__}-{self._run}-{number}"
        future = self._client.submit(
            perform_here, step, self._run, key=key, pure=False, priority=-number
        )
        self._steps[key] = step
        future.add_done_callback(self._done.put)

    def next_done(self) -> tuple[Step, Receipt]:
        """Wait for any step; one that kills its worker although it is alone gives a failure."""
        while True:
            if not self._steps:
                self._alone = self._suspects.popleft()
                self.submit(self._alone)
            future = self._wait()
            step = self._steps.pop(str(future.key))
            if future.cancelled():
                raise _lost()
            error = future.exception()
            if isinstance(error, KilledWorker):
                if step is not self._alone:
                    # Its worker had other steps in work; any of them may be the cause.
                    self._suspects.append(step)
                    continue
                receipt: Receipt = _crashed(step)
            elif error is not None:
                raise error
            else:
                receipt = future.result()
            future.release()
            if step is self._alone:
                self._alone = None
            return step, receipt

    def _wait(self) -> Future[Receipt]:
        """A step's future that is done; raises where no worker is left that could do any."""
        while True:
            with suppress(Empty):
                return self._done.get(timeout=LOOKED_AFTER_S)
            self._see_workers()

    def _see_workers(self) -> None:
        """Raise, or say, that there has been no worker for long."""
        try:
            there = bool(self._client.nthreads())
        except (OSError, TimeoutError) as error:
            raise _lost() from error
        if there:
            self._none_since = None
            return
        if self._none_since is None:
            self._none_since = monotonic()
        if monotonic() - self._none_since < GONE_S:
            return
        if self._cluster is not None:
            raise SlideTriageError(
                f"All workers have ended, and for {GONE_S:.0f} s none has come back.",
                mend="See whether something ends them, such as a limit of memory; then run again: "
                "finished slides are kept.",
                code="E_SCHEDULER",
            )
        _log.warning("no worker is connected to the scheduler; waiting for one")
        self._none_since = inf  # said once

    def close(self) -> None:
        """Stop the workers that were started here, and leave those of others alone."""
        if self._cluster is None and self._client.status == "running":
            with suppress(OSError):  # a scheduler that has gone has no more plugins either
                self._client.unregister_worker_plugin(self._run)
        with suppress(TimeoutError):
            self._client.close(timeout=CLOSED_WITHIN_S)
        if self._cluster is not None:
            self._cluster.close()
        self._configured.close()


def _join(cluster: SpecCluster | None) -> Client:
    """A client of the scheduler that was started here."""
    try:
        return Client(cluster)
    except OSError as error:
        raise _not_started(error) from error


def _not_started(error: Exception) -> SlideTriageError:
    cause = error.__cause__ or error
    return SlideTriageError(
        f"The workers could not be started: {type(cause).__name__}: {cause}.",
        mend="Run again, or use --engine serial.",
        code="E_SCHEDULER",
    )


def connect(address: str) -> Client:
    """A client of a scheduler that is running; raises `UsageError` where it cannot be reached."""
    check = (
        "Check that it runs, that its port can be reached from here, and that "
        "distributed.comm.tls in Dask's configuration names a certificate of the scheduler's own "
        "authority, and its key (docs/cluster.md)."
    )
    try:
        context = Security().get_connection_args("client").get("ssl_context")
        client = None
        if context is not None or not address.startswith("tls:"):
            client = Client(address, timeout=REACHED_WITHIN_S)
    except (OSError, ValueError) as error:
        raise UsageError(f"{address} cannot be reached: {error}.", mend=check) from error
    if client is None:
        raise UsageError(f"{address} asks for certificates; none are configured.", mend=check)
    return client


def _register(client: Client, plugin: StationPlugin) -> None:
    """Give the plugin to every worker there is, and to those that come later."""
    try:
        client.register_plugin(plugin)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"A worker cannot load slidetriage: {error}.",
            mend=f"Install slidetriage {plugin.version} for the scheduler and every worker.",
        ) from error


def _lost() -> SlideTriageError:
    return SlideTriageError(
        "The connection to the scheduler was lost.",
        mend="See that it runs, then run again; finished slides are kept.",
        code="E_SCHEDULER",
    )


def _crashed(step: Step) -> SlideFailure:
    return SlideFailure(
        STEP_NAMES[type(step)],
        "E_CRASH",
        "Reading this slide killed its worker again and again, alone too; it is probably damaged. "
        "Copy it again, or convert it to a pyramidal TIFF.",
        rejected=True,
    )


_proof: type[Engine] = DaskEngine
