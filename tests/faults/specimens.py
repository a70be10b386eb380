"""One hostile file, and what a run must make of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Specimen:
    """A file of one case of the matrix, and how it must end."""

    case: int
    path: Path
    state: str
    codes: tuple[str, ...] = ()
    """Any of these; none where the slide is done."""
    says: tuple[str, ...] = ()
    """What the message, or the warnings and reasons of a slide that is done, must say: the cause
    and what to do about it. Capitals do not matter; `|` stands between words of equal worth."""
    variant: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    """Of its row in the manifest."""
    lost: tuple[tuple[int, int], ...] = ()
    """Row and column of the cells that must be NaN."""
    touched: tuple[tuple[int, int], ...] = ()
    """Cells that may differ from the clean slide's; all others must be equal."""

    @property
    def must_fail(self) -> bool:
        """Whether no result may come of it."""
        return self.state in ("REJECTED", "FAILED")

    @property
    def label(self) -> str:
        """For the test's name."""
        return f"{self.case:02d}-{self.variant}" if self.variant else f"{self.case:02d}"


def rejected(case: int, path: Path, code: str, *says: str, variant: str = "") -> Specimen:
    """The slide itself is at fault; `code` may be several, split by spaces."""
    return Specimen(case, path, "REJECTED", tuple(code.split()), says, variant)


def failed(case: int, path: Path, code: str, *says: str, variant: str = "") -> Specimen:
    """The slide could not be done now and may be tried again."""
    return Specimen(case, path, "FAILED", tuple(code.split()), says, variant)


def gaps(case: int, path: Path, *says: str, variant: str = "") -> Specimen:
    """Done, but for tiles that are lost and said to be."""
    return Specimen(case, path, "DONE_WITH_GAPS", (), says, variant)


def done(case: int, path: Path, *says: str, variant: str = "") -> Specimen:
    """Done; `says` must stand among its warnings or reasons."""
    return Specimen(case, path, "DONE", (), says, variant)
