"""The decoder's side of the conversation with its owner."""

from __future__ import annotations

import traceback
from multiprocessing.connection import Connection

from slidetriage.errors import SlideNotReadable, SlideTriageError

from .tasks import Tasks

Answer = tuple[str, object]
"""`("done", value)`, `("refused", SlideTriageError)` or `("failed", text)`."""


def serve(owner: Connection, tasks: Tasks) -> None:
    """Do what is asked, one task after the other, until the owner hangs up."""
    while True:
        try:
            name, arguments = owner.recv()
        except (EOFError, ConnectionError):
            return
        owner.send(_perform(tasks, name, arguments))


def _perform(tasks: Tasks, name: str, arguments: tuple[object, ...]) -> Answer:
    try:
        return "done", getattr(tasks, name)(*arguments)
    except SlideTriageError as error:
        return "refused", error
    except MemoryError:
        return "refused", SlideNotReadable(
            "Decoding it needs more memory than one decoder may use.",
            mend="It is damaged, or a plain image too large for one; convert it to a tiled TIFF.",
            code="E_TOO_LARGE",
        )
    except Exception as error:  # noqa: BLE001 - told to the owner, who makes a failure of it
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "failed", f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})"
