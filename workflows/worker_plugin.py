"""What a Dask worker holds: its station, with the model loaded once."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from distributed import Worker, WorkerPlugin, get_worker

from slidetriage import __version__
from slidetriage.errors import UsageError

from .opening import OpenStation, open_triage
from .orphans import end_with_parent
from .serial import AHEAD
from .settings import Settings
from .steady_clock import keep_time_steadily
from .steps import Receipt, Step

if TYPE_CHECKING:
    from .station import EncodingStation


class StationPlugin(WorkerPlugin):
    """Gives each worker its station; the model is loaded when the worker starts."""

    def __init__(
        self, settings: Settings, out: Path, *, private: bool, station: OpenStation = open_triage
    ) -> None:
        self.name = f"slidetriage-{uuid4().hex}"
        """Unlike that of any other run: several may share a scheduler."""
        self.settings = settings
        self.out = out
        self.version = __version__
        self.private = private
        """Whether the workers belong to this run, and end when it ends."""
        self._at_once = 1
        self._open_station = station
        self._station: EncodingStation[Any] | None = None

    def setup(self, worker: Worker) -> None:
        """Load the model now, so that a model that cannot be loaded ends the run at its start."""
        self._check_version()
        keep_time_steadily()
        if self.settings.device == "cpu":
            self._at_once = max(1, worker.state.nthreads - AHEAD)
        self._station = self._open()

    def teardown(self, worker: object) -> None:
        """Let go of the open slides."""
        del worker
        if self._station is not None:
            self._station.close()

    def perform(self, step: Step) -> Receipt:
        """Carry out a step; raises what went wrong where the worker could not be set up."""
        if self._station is None:
            self._check_version()
            self._station = self._open()
        return self._station.perform(step)

    def _check_version(self) -> None:
        if self.version != __version__:
            raise UsageError(
                f"A worker has slidetriage {__version__}, and this is {self.version}.",
                mend="Install the same version for the scheduler, every worker and this run.",
            )

    def _open(self) -> EncodingStation[Any]:
        if self.private and threading.current_thread() is threading.main_thread():
            # A terminal sends Ctrl-C to every process; the run itself ends its workers.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            end_with_parent()  # which is the template; were it killed, nobody would end this one
        station = self._open_station(self.settings, self.out, at_once=self._at_once)
        _ = station.model  # loads it; it is compiled beside the first steps
        return station


def perform_here(step: Step, plugin_name: str) -> Receipt:
    """Carry out a step on the worker that this is called on."""
    plugin = get_worker().plugins.get(plugin_name)
    if not isinstance(plugin, StationPlugin):
        raise TypeError(f"the worker has no station {plugin_name!r}: that run has ended")
    return plugin.perform(step)
