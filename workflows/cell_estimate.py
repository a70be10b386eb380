"""What looking at nuclei will take, of one slide and of all; part of an estimate of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CellEstimate:
    """What a slide's nuclei will take."""

    windows: int
    mpp: float
    """um per pixel of the windows."""
    looked_at_mm2: float
    """Area read at high power."""
    tissue_share: float
    """The same as a share of the tissue, at most 1."""
    seconds: float
    """With all workers on this slide."""
    result_bytes: int
    """Of the files of nuclei."""
    at_most: bool
    """Whether it is all that could be flagged; what will be is known after the first look."""

    def as_record(self) -> dict[str, object]:
        """For programs; seconds, mm2, bytes."""
        return {
            "windows": self.windows,
            "mpp": self.mpp,
            "looked_at_mm2": round(self.looked_at_mm2, 6),
            "tissue_share": rounded(self.tissue_share),
            "seconds": rounded(self.seconds),
            "result_bytes": self.result_bytes,
            "at_most": self.at_most,
        }


def add_up(found: Sequence[CellEstimate], tissue_mm2: float) -> CellEstimate | None:
    """Of several slides with so much tissue in all; None without any."""
    if not found:
        return None
    area = sum(each.looked_at_mm2 for each in found)
    return CellEstimate(
        windows=sum(each.windows for each in found),
        mpp=found[0].mpp,
        looked_at_mm2=area,
        tissue_share=min(1.0, area / tissue_mm2) if tissue_mm2 > 0 else 0.0,
        seconds=sum(each.seconds for each in found),
        result_bytes=sum(each.result_bytes for each in found),
        at_most=any(each.at_most for each in found),
    )


def rounded(value: float | None) -> float | None:
    """To three digits, as a measurement of seconds deserves."""
    return None if value is None else float(f"{value:.3g}")
