"""How a station is opened, told to processes that hand out steps and never import a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .settings import Settings

if TYPE_CHECKING:
    # Takes seconds, and hundreds of megabytes.
    from .station import EncodingStation


class OpenStation(Protocol):
    """Opens a station in whichever process will carry out the steps; must pickle."""

    def __call__(self, settings: Settings, out: Path, *, at_once: int = 1) -> EncodingStation[Any]:
        """Open it; nothing is loaded yet."""
        ...


def open_triage(settings: Settings, out: Path, *, at_once: int = 1) -> EncodingStation[Any]:
    """Open the station that triages."""
    from .station import Station

    return Station(settings, out, at_once=at_once)


_proof: OpenStation = open_triage
