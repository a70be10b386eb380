"""The worklist: one row for every slide given, the most suspicious first, as CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slidetriage.models.trust import Verdict

from .privacy import on_one_line
from .publishing import write_json, write_whole
from .settings import RESEARCH_USE, Settings
from .sources import SlideRequest, display_name
from .steps import SlideFailure, SlideResult

COLUMNS = (
    "rank", "row", "slide_id", "state", "verdict", "score", "ruled_out", "novelty", "regions",
    "flagged_mm2", "tissue_mm2", "tiles", "unreadable", "nuclei", "abnormal_nuclei", "code",
    "reason", "directory", "file",
)  # fmt: skip


URGENCY: tuple[Verdict, ...] = ("flag", "needs eyes", "clear")
"""The order of the worklist."""

PENDING_CODE = "E_PENDING"

PENDING = SlideFailure(
    "plan",
    PENDING_CODE,
    "The run ended before this slide was done. Run again to go on.",
    rejected=False,
)
"""What stands for the outcome of a slide that has none yet."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula may begin with; the wide ones count where Chinese or Japanese is written."""


@dataclass(frozen=True, slots=True)
class Row:
    """One slide that was asked for, and what became of it."""

    request: SlideRequest
    outcome: SlideResult | SlideFailure

    @property
    def state(self) -> str:
        """DONE, DONE_WITH_GAPS, REJECTED, FAILED, or PENDING where the run never got to it."""
        if isinstance(self.outcome, SlideResult):
            return self.outcome.state
        if self.outcome.code == PENDING_CODE:
            return "PENDING"
        return "REJECTED" if self.outcome.rejected else "FAILED"

    @property
    def score(self) -> float | None:
        """The slide's probability, where it has one."""
        return self.outcome.score if isinstance(self.outcome, SlideResult) else None


def rank_rows(rows: Sequence[Row]) -> list[Row]:
    """What is flagged first, then what needs eyes, then what is clear, each by falling score.

    Last comes what could not be triaged, by state and name, for a person to look at.
    """

    def order(row: Row) -> tuple[int, float, str, str]:
        outcome = row.outcome
        verdict = outcome.verdict if isinstance(outcome, SlideResult) else "not scored"
        place = len(URGENCY) if verdict == "not scored" else URGENCY.index(verdict)
        score = row.score
        return place, 1.0 if score is None else -score, row.state, str(row.request.path)

    return sorted(rows, key=order)


def as_records(rows: Sequence[Row], *, settings: Settings | None = None) -> list[dict[str, object]]:
    """The rows of the worklist in order, with the columns of `COLUMNS`.

    Where the settings say that no name may be told, `file` is empty.
    """
    asked = settings or Settings()
    return [_record(rank, row, asked) for rank, row in enumerate(rank_rows(rows), start=1)]


def write_worklist(out: Path, rows: Sequence[Row], *, settings: Settings | None = None) -> None:
    """Write worklist.csv and worklist.json, each in one step."""
    records = as_records(rows, settings=settings)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: as_cell(value) for key, value in record.items()} for record in records)
    write_whole(out / "worklist.csv", text.getvalue().encode("utf-8"))
    write_json(
        out / "worklist.json",
        {
            "schema_version": 4,
            "notice": RESEARCH_USE,
            "summary": count(rows),
            "triage": triage(rows),
            "slides": records,
        },
    )


def count(rows: Sequence[Row]) -> dict[str, int]:
    """How many slides were planned and what became of them; the parts add up to the whole."""
    states = [row.state for row in rows]
    return {
        "planned": len(rows),
        "done": states.count("DONE"),
        "gaps": states.count("DONE_WITH_GAPS"),
        "rejected": states.count("REJECTED"),
        "failed": states.count("FAILED"),
        "pending": states.count("PENDING"),
    }


def triage(rows: Sequence[Row]) -> dict[str, object]:
    """How many slides have which verdict, and what share of slides and tissue needs no look.

    Slides that need no look are those ruled out at the sensitivity that the model's card states;
    shares are of the slides that were triaged, None where there are none.
    """
    results = [row.outcome for row in rows if isinstance(row.outcome, SlideResult)]
    tissue = sum(result.tissue_mm2 for result in results)
    spared = [result for result in results if result.ruled_out]
    area = sum(result.tissue_mm2 for result in spared)
    return {
        **{verdict: sum(r.verdict == verdict for r in results) for verdict in URGENCY},
        "ruled_out": len(spared),
        "ruled_out_share": len(spared) / len(results) if results else None,
        "ruled_out_tissue_share": area / tissue if tissue else None,
    }


def _record(rank: int, row: Row, settings: Settings) -> dict[str, object]:
    request, outcome = row.request, row.outcome
    record: dict[str, object] = dict.fromkeys(COLUMNS)
    record |= {
        "rank": rank,
        "row": request.row,
        "slide_id": display_name(request, settings),
        "state": row.state,
        "file": None if settings.deidentify else request.path.name,
    }
    if isinstance(outcome, SlideFailure):
        record |= {"code": outcome.code, "reason": outcome.message}
    else:
        record |= {
            "slide_id": outcome.slide_id,
            "verdict": outcome.verdict,
            "score": outcome.score,
            "ruled_out": outcome.ruled_out,
            "novelty": outcome.novelty,
            "regions": outcome.regions,
            "flagged_mm2": round(outcome.flagged_mm2, 6),
            "tissue_mm2": round(outcome.tissue_mm2, 6),
            "tiles": outcome.tiles,
            "unreadable": outcome.unreadable,
            "nuclei": outcome.nuclei,
            "abnormal_nuclei": outcome.abnormal_nuclei,
            "reason": "; ".join((*outcome.reasons, *outcome.warnings)) or None,
            "directory": outcome.directory,
        }
    return {
        name: on_one_line(value) if isinstance(value, str) else value
        for name, value in record.items()
    }


def as_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula (OWASP ASVS 5.0, 1.2.10)."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
