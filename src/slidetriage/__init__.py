"""slidetriage: whole-slide-image triage for digital pathology. For research use only.

The public names are loaded when first used, so that importing the package stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slidetriage.errors import SlideTriageError
    from slidetriage.models import Bundle, load_bundle
    from slidetriage.tiling import find_tissue
    from slidetriage.workflows import Resources, Settings, triage
    from slidetriage.wsi import Slide, open_reader, open_slide

__all__ = [
    "Bundle",
    "Resources",
    "Settings",
    "Slide",
    "SlideTriageError",
    "__version__",
    "find_tissue",
    "load_bundle",
    "open_reader",
    "open_slide",
    "triage",
]

__version__ = "0.1.0"

_HOME = {
    "Bundle": "slidetriage.models",
    "Resources": "slidetriage.workflows",
    "Settings": "slidetriage.workflows",
    "Slide": "slidetriage.wsi",
    "SlideTriageError": "slidetriage.errors",
    "find_tissue": "slidetriage.tiling",
    "load_bundle": "slidetriage.models",
    "open_reader": "slidetriage.wsi",
    "open_slide": "slidetriage.wsi",
    "triage": "slidetriage.workflows",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
