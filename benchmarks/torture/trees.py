"""What a run left in its output folder, held against an undisturbed run's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from slidetriage.workflows.ledger import verify_output
from slidetriage.workflows.ledger.audit import read_audit, verify_audit
from slidetriage.workflows.ledger.places import audit_path
from trees import tree

KEPT = ("DONE", "DONE_WITH_GAPS", "REJECTED")
"""States in which a slide is not done again."""


def differences(out: Path, reference: dict[str, str]) -> list[str]:
    """What is not as in the reference: files, leftovers, log, findings of `verify`."""
    found = tree(out)
    said = [f"missing: {name}" for name in sorted(reference.keys() - found.keys())]
    said += [f"too many: {name}" for name in sorted(found.keys() - reference.keys())]
    shared = sorted(reference.keys() & found.keys())
    said += [f"differs: {name}" for name in shared if reference[name] != found[name]]
    said += [f"left: {name}" for name in (".staging", ".slidetriage.lock") if (out / name).exists()]
    said += [f"verify: {one.directory} {one.file} {one.what}" for one in verify_output(out)]
    return said


@dataclass(frozen=True, slots=True)
class Left:
    """What a run that was killed and resumed left behind."""

    problems: list[str]
    log_valid: bool
    redone: int
    """How often a slide was begun from the start beyond its first time."""
    recomputed: int
    """How often though it had ended well."""


def examine(out: Path, reference: dict[str, str]) -> Left:
    """Everything that is not as it must be."""
    try:
        problems = differences(out, reference)
        problem = verify_audit(audit_path(out)).problem
        redone, recomputed = count_redone(out)
    except Exception as error:  # noqa: BLE001 - a record that cannot be read is a finding
        return Left([f"{type(error).__name__}: {error}"], False, 0, 0)
    if problem is not None:
        problems.append(f"log: {problem}")
    if recomputed:
        problems.append(f"{recomputed} slides were done again though they had ended")
    return Left(problems, problem is None, redone, recomputed)


def count_redone(out: Path) -> tuple[int, int]:
    """How often a slide was begun from the start once more, and how often though it had ended well.

    One of which tiles were stored is gone on with, and not from the start.
    """
    begun: Counter[int] = Counter()
    ended: set[int] = set()
    again = 0
    for event in read_audit(audit_path(out)):
        if event["event"] == "slide_running":
            begun[event["row"]] += event["row"] not in begun or event["stored"] == 0
            again += event["row"] in ended
        elif event["event"] == "slide_ended" and event["state"] in KEPT:
            ended.add(event["row"])
    return sum(begun.values()) - len(begun), again
