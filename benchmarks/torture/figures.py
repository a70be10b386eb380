"""The figures of killed runs, and how they are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Figures:
    """What came of the trials so far."""

    seed: int
    trials: int = 0
    identical: int = 0
    kills: int = 0
    redone: int = 0
    most_redone: float = 0.0
    """For each kill, in the trial where it was most."""
    recomputed: int = 0
    audits: int = 0
    by_target: Counter[str] = field(default_factory=Counter)
    by_signal: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def record(self, seconds: float) -> dict[str, object]:
        """For programs."""
        return {
            "trials": self.trials,
            "identical": self.identical,
            "redone_slides": self.redone,
            "redone_a_kill": round(self.redone / max(1, self.kills), 2),
            "redone_a_kill_at_most": self.most_redone,
            "recomputed_slides": self.recomputed,
            "kills": self.kills,
            "seed": self.seed,
            "by_target": dict(self.by_target.most_common()),
            "by_signal": dict(self.by_signal.most_common()),
            "crash_points": {"tried": self.tried["point"], "identical": self.same["point"]},
            "double_runs": {
                "tried": self.tried["double"],
                "identical": self.same["double"],
                "refused": self.refused,
            },
            "audit_valid": self.audits,
            "seconds": round(seconds),
            "wrong": self.wrong[:20],
        }
