"""What libraries say of a file, in one line and without the folder that it lies in."""

from __future__ import annotations

import os
from pathlib import Path


def without_folder(path: Path, error: BaseException) -> str:
    """The first line of an error about a slide or a file beside it.

    >>> without_folder(Path("/data/DOE/a.svs"), OSError("cannot read /data/DOE/a/1.dat."))
    'cannot read a/1.dat'
    """
    text = (str(error).splitlines() or [type(error).__name__])[0]
    folder = path.parent
    places = {str(folder), os.path.abspath(folder), os.path.realpath(folder)}
    for place in sorted(places - {".", "/"}, key=len, reverse=True):
        text = text.replace(f"{place}/", "")
    return text.rstrip(".")
