"""Every error slidetriage raises on purpose.

    SlideTriageError                 base; .code, .what, .mend; itself E_SCHEDULER, E_CLOSED
    |-- SlideError                   this slide cannot be used as it is
    |   |-- SlideNotFound            E_NOT_FOUND        also FileNotFoundError
    |   |-- SlideNotReadable         E_PERMISSION, E_NOT_REGULAR, E_EMPTY, E_NOT_SLIDE, E_TRUNCATED,
    |   |                            E_NOT_RGB, E_TOO_LARGE, E_HASH, E_CRASH      also ValueError
    |   |-- ScaleError               E_NO_MPP, E_BAD_MPP, E_MPP_TOO_COARSE   also ValueError
    |   `-- PixelsUnreadable         E_TILE_DECODE, E_TOO_MANY_GAPS, E_UNSTABLE, E_IO,
    |                                E_TIMEOUT   also OSError
    |-- ModelError                   E_BUNDLE, E_MODEL_NAN, E_OUT_OF_MEMORY   also ValueError
    |-- OutputError                  E_OUTPUT, E_LOCKED, E_LEDGER   also OSError
    `-- UsageError                   E_USAGE, E_TABLE, E_SPLIT, E_SURVIVAL, E_FEATURES,
                                     E_FEATURES_MIXED   also ValueError

A message says what is wrong, where, and how to mend it. Codes are stable: programs match on them.
"""

from __future__ import annotations


class SlideTriageError(Exception):
    """Base of every deliberate error: a stable `code`, what is wrong, and how to mend it."""

    code: str = "E_INTERNAL"

    def __init__(self, what: str, *, mend: str = "", code: str | None = None) -> None:
        super().__init__(what, mend, code)
        self.what = what
        self.mend = mend
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.what} {self.mend}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.mend, self.code)


def _rebuild(kind: type[SlideTriageError], what: str, mend: str, code: str) -> SlideTriageError:
    return kind(what, mend=mend, code=code)


class SlideError(SlideTriageError):
    """This slide cannot be used as it is; other slides are not concerned."""

    code = "E_SLIDE"


class SlideNotFound(SlideError, FileNotFoundError):
    """No file is at the path given."""

    code = "E_NOT_FOUND"


class SlideNotReadable(SlideError, ValueError):
    """The file exists but is not a slide that can be opened."""

    code = "E_NOT_SLIDE"


class ScaleError(SlideError, ValueError):
    """The physical scale is missing, impossible, or cannot serve the model."""

    code = "E_NO_MPP"


class PixelsUnreadable(SlideError, OSError):
    """The slide opened but pixels in it cannot be decoded."""

    code = "E_TILE_DECODE"


class ModelError(SlideTriageError, ValueError):
    """A model bundle is missing, damaged, or gave impossible numbers."""

    code = "E_BUNDLE"


class OutputError(SlideTriageError, OSError):
    """Results cannot be written."""

    code = "E_OUTPUT"


class UsageError(SlideTriageError, ValueError):
    """The command or call does not make sense as given."""

    code = "E_USAGE"
