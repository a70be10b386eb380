"""The record of a run: what became of every slide, in a log that shows any change to it.

The public names are loaded when first used, so that commands which only read the log begin at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .audit import AuditCheck, AuditLog, read_audit, verify_audit
    from .events import RunStart, Work, run_ended, run_started, slide_ended, slide_running
    from .folders import Finding
    from .registry import Registry
    from .reporting import write_report
    from .states import Ending, Running, count_codes, replay, summarise
    from .verifying import verify_output

__all__ = [
    "AuditCheck",
    "AuditLog",
    "Ending",
    "Finding",
    "Registry",
    "RunStart",
    "Running",
    "Work",
    "count_codes",
    "read_audit",
    "replay",
    "run_ended",
    "run_started",
    "slide_ended",
    "slide_running",
    "summarise",
    "verify_audit",
    "verify_output",
    "write_report",
]

_HOME = {
    "audit": ("AuditCheck", "AuditLog", "read_audit", "verify_audit"),
    "events": ("RunStart", "Work", "run_ended", "run_started", "slide_ended", "slide_running"),
    "folders": ("Finding",),
    "registry": ("Registry",),
    "reporting": ("write_report",),
    "states": ("Ending", "Running", "count_codes", "replay", "summarise"),
    "verifying": ("verify_output",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
