"""Where a run computes: which engine, how many workers, whose scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from slidetriage.errors import UsageError

from .opening import OpenStation, open_triage
from .serial import Engine, SerialEngine
from .settings import Settings

EngineName = Literal["serial", "dask"]


@dataclass(frozen=True, slots=True)
class Resources:
    """Where a run computes; it never changes what comes out."""

    engine: EngineName = "dask"
    """`dask` spreads the work over processes, `serial` does it here, one step after the other."""
    workers: int | None = None
    """Processes on this machine; one for each core, or for each GPU, if not given."""
    scheduler: str | None = None
    """Address of a running Dask scheduler to use instead, such as `tls://host:8786`."""

    def __post_init__(self) -> None:
        if self.engine not in ("serial", "dask"):
            raise UsageError(f"There is no engine {self.engine!r}.", mend="Choose serial or dask.")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.workers} workers can do nothing; give at least 1.")
        if self.scheduler is not None:
            check_address(self.scheduler)


def check_address(address: str) -> None:
    """Raise `UsageError` for a scheduler elsewhere without TLS: it runs whatever it is sent."""
    parts = urlsplit(address)
    if parts.scheme != "tls" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UsageError(
            f"{address}: a scheduler on another machine must be reached by TLS.",
            mend="Use tls://host:port, with the certificates in Dask's configuration "
            "(distributed.comm.tls).",
        )


@contextmanager
def open_engine(
    resources: Resources, settings: Settings, out: Path, *, station: OpenStation = open_triage
) -> Iterator[Engine]:
    """The engine that `resources` name, closed in the end; `station` carries out its steps."""
    engine: Engine
    if resources.engine == "serial":
        engine = SerialEngine(settings, out, station=station)
    else:
        from .distribution import DaskEngine

        engine = DaskEngine(
            settings,
            out,
            workers=resources.workers,
            address=resources.scheduler,
            station=station,
        )
    try:
        yield engine
    finally:
        engine.close()
