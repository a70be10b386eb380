"""The worker processes of a run on this machine: how many, how wide, and which GPU each has."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from dask.system import CPU_COUNT
from distributed import Nanny, Scheduler, SpecCluster
from distributed.core import Status

from slidetriage.errors import UsageError

from .loopback_tls import make_credentials
from .serial import AHEAD, MOST_AT_ONCE

CORES_TOGETHER = 4
"""Cores that one process serves unless told otherwise: encodings in one process share the weights,
and so the processor's cache (two cores were 6 % faster so than as two processes), but a process
that dies takes all of its batches with it."""

MOST_READERS = 8
"""Threads at most that read ahead of one GPU; each holds a batch of tiles in memory."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

CLOSED_WITHIN_S = 4.0
"""Seconds that workers have to end by themselves: a run that is told to stop ends within ten."""

QUIET = 50
"""Log level of the processes; what matters comes back as a receipt."""


@dataclass(frozen=True, slots=True)
class Process:
    """One worker process."""

    threads: int
    """Steps at a time: all but one may encode, and the others read ahead."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables set in that process alone."""


def plan_processes(
    device: str, wanted: int | None, *, gpus: tuple[str, ...] = (), cores: int = CPU_COUNT
) -> tuple[Process, ...]:
    """The processes that a run on `device` has here.

    On the CPU one for every four cores, or as many as wanted to share the cores; on `cuda` one
    for each GPU, which sees no other, or fewer if fewer are wanted; on `cuda:N` one.

    Parameters
    ----------
    device
        As in `Settings`.
    wanted
        Processes asked for, if any number was.
    gpus
        Names of the visible GPUs, as in CUDA_VISIBLE_DEVICES and in its order.
    cores
        Cores that this process may use.

    Raises
    ------
    UsageError
        There is no such GPU, or fewer than the processes wanted.

    Examples
    --------
    >>> plan_processes("cuda", None, gpus=("0", "1"), cores=8)[1]
    Process(threads=5, environment=(('CUDA_VISIBLE_DEVICES', '1'),))
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        count = wanted or ceil(cores / CORES_TOGETHER)
        return (Process(min(MOST_AT_ONCE, max(1, cores // count)) + AHEAD),) * count
    if not gpus or (index and not (index.isdecimal() and int(index) < len(gpus))):
        raise UsageError(
            f"There is no device {device!r}: {len(gpus)} CUDA devices are visible.",
            mend=f"Check nvidia-smi and {VISIBLE}, or choose --device cpu.",
        )
    most = 1 if index else len(gpus)
    count = wanted or most
    if count > most:
        raise UsageError(
            f"{count} workers are more than the GPUs that {device} stands for, {most}.",
            mend=f"One worker keeps a GPU busy: give --workers {most} or leave it out.",
        )
    threads = 1 + max(1, min(MOST_READERS, cores // count))
    if index:
        return (Process(threads),)
    return tuple(Process(threads, ((VISIBLE, gpu),)) for gpu in gpus[:count])


def find_gpus() -> tuple[str, ...]:
    """Names of the GPUs that CUDA would show this process; starts nothing on them."""
    import torch

    return name_gpus(torch.cuda.device_count(), os.environ.get(VISIBLE))


def name_gpus(count: int, visible: str | None) -> tuple[str, ...]:
    """Names of the first `count` GPUs: those that CUDA_VISIBLE_DEVICES gives, or their numbers.

    >>> name_gpus(2, "GPU-8f,3,-1")
    ('GPU-8f', '3')
    """
    if visible is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in visible.split(","))[:count]


class Keeper(Nanny):
    """A nanny whose closing ends.

    Where the process that workers are forked from dies with the wish for one in its hands, Dask's
    nanny trips over a process that never was, stays in its closing, and all wait for it for ever.
    """

    async def close(self, *arguments: Any, **options: Any) -> Literal["OK"]:  # type: ignore[override]  # as Dask's own
        """Close the worker, or kill it and let go of it."""
        try:
            return await super().close(*arguments, **options)
        except (AssertionError, TimeoutError):
            with suppress(ProcessLookupError):
                if self.pid is not None:
                    os.kill(self.pid, signal.SIGKILL)
            self.status = Status.closed
            self._event_finished.set()
            return "OK"


class Workers(SpecCluster):
    """Workers of this machine, which end within seconds when they are told to."""

    async def _close(self) -> None:
        try:
            closing = super()._close()  # type: ignore[no-untyped-call]  # Dask's
            await asyncio.wait_for(closing, CLOSED_WITHIN_S)
        except (TimeoutError, AssertionError):
            # Dask asserts that all of them closed; one whose start was interrupted never began.
            for nanny in self._created:
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
            self.status = Status.closed


def start_cluster(processes: tuple[Process, ...]) -> SpecCluster:
    """Start the processes with a scheduler of their own: loopback only, with throw-away TLS."""
    shared: dict[str, object] = {
        "host": "127.0.0.1",
        "protocol": "tls://",
        "security": make_credentials(),
    }
    scheduler = {**shared, "port": 0, "dashboard": True, "dashboard_address": "127.0.0.1:0"}
    return Workers(  # type: ignore[no-untyped-call]  # Dask's
        workers={
            number: {
                "cls": Keeper,
                "options": {
                    **shared,
                    "nthreads": process.threads,
                    "env": dict(process.environment),
                    "memory_limit": 1 / len(processes),  # a share of what the machine has
                    "silence_logs": QUIET,
                },
            }
            for number, process in enumerate(processes)
        },
        scheduler={"cls": Scheduler, "options": scheduler},
        security=shared["security"],
        silence_logs=QUIET,
    )
