"""TIAToolbox, imported only when something of it is asked for; nothing else here imports it."""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any

from slidetriage.errors import ModelError


def import_toolbox(module: str) -> Any:
    """A module of TIAToolbox, e.g. "tools.stainnorm"; raises `ModelError` if that fails.

    What its packages warn of on import (a file left open, TensorFlow absent) is nothing that a
    user could mend. The program's logging, which it would turn to standard output, is put back.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"tiatoolbox.{module}")
    except ImportError as error:
        raise ModelError(
            f"TIAToolbox cannot be imported ({error}).", mend="Install tiatoolbox 2.1."
        ) from error
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
