"""Simulated predictions of each kind, with and without validation parts."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from slidetriage.workflows.research.cohort import Column, ExcludedRow
from slidetriage.workflows.research.predictions import Kind, Predictions


def simulate(
    kind: Kind = "classes",
    *,
    classes: tuple[str, ...] = ("benign", "tumour"),
    patients: int = 120,
    validation: bool = True,
    seeds: int = 1,
) -> Predictions:
    """Two folds, each tested by the other's model; slides of a third of the patients are two.

    Scores are logits shifted by 1 and stretched by 2, so that they are badly calibrated.
    """
    rng = np.random.default_rng(0)
    owner = np.arange(patients)
    if kind != "survival":
        owner = np.concatenate([owner, owner[::3]])
    truth = rng.integers(0, max(2, len(classes)), patients)[owner]
    times, events = rng.exponential(5 / (1 + truth)), rng.random(len(owner)) < 0.7
    row, fold, part, seed = _lay_out(owner % 2, validation, seeds)
    noise = rng.normal(0, 1, (len(row), max(2, len(classes))))
    logits = 2 * (np.eye(max(2, len(classes)))[truth[row]] + noise)
    if kind != "classes":
        score = logits[:, 1:2]
    elif len(classes) == 2:
        p = expit(logits[:, 1] - logits[:, 0] + 1)
        score = np.stack([1 - p, p], axis=1)
    else:
        score = softmax(logits, axis=1)
    died = kind == "survival"
    return Predictions(
        kind=kind,
        classes=classes if kind == "classes" else (),
        slide=np.array([f"slide {r}" for r in row]),
        patient=np.array([f"P{o}" for o in owner[row]]),
        fold=np.array([f"fold {f}" for f in fold]),
        seed=seed,
        part=part,
        score=score,
        label=None if died else truth[row].astype(float),
        time=times[row] if died else None,
        event=events[row] if died else None,
        site=(owner[row] // 2 % 3).astype(str),
        subgroups=(
            Column("age", "number", 40.0 + owner[row] % 40),
            Column("sex", "category", np.where(owner[row] // 2 % 2, "f", "m")),
        ),
        excluded=(
            ExcludedRow(5, "x", "X", "has no 'label'"),
            ExcludedRow(6, "y", "Y", "has no 'label'"),
            ExcludedRow(9, "z", "Z", "has no features"),
        ),
    )


def _lay_out(home: np.ndarray, validation: bool, seeds: int) -> tuple[np.ndarray, ...]:
    """Slide, fold, part and seed of each row."""
    rows = [
        (slide, fold, "test" if home[slide] == fold else "validation", seed)
        for seed in range(seeds)
        for fold in (0, 1)
        for slide in range(len(home))
        if validation or home[slide] == fold
    ]
    return tuple(np.array(column) for column in zip(*rows, strict=True))
