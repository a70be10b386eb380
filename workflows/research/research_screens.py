"""What the researcher's commands show: progress while they run, and a table at the end."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import auc, harrell_concordance, multiclass_auc
from slidetriage.workflows.json_output import print_json
from slidetriage.workflows.settings import RESEARCH_USE

from .extraction import FeaturesReport
from .study import Study, make_bags
from .training_run import TrainingReport
from .trainings import Outcome


def print_extraction(report: FeaturesReport, *, json: bool) -> None:
    """What became of every slide whose features were asked for."""
    if json:
        record = {"out": str(report.out), "encoder": report.encoder, "summary": report.counts}
        print_json(record)
        return
    counts = ", ".join(f"{number} {name}" for name, number in report.counts.items())
    console = Console(highlight=False)
    for row in report.rows:
        if row.state not in ("DONE", "DONE_WITH_GAPS"):
            console.print(f"{row.state} {row.request.name}", markup=False)
    console.print(f"{counts}\nFeatures: {report.out} (features.csv names them)", markup=False)


class TrainingScreen:
    """Shows trainings as they are done, on stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("training", total=None)

    def __enter__(self) -> TrainingScreen:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def follow(self, count: int, outcome: Outcome) -> None:
        """One more of `count` is done."""
        epochs = len(outcome.history)
        self._progress.update(
            self._task,
            total=count,
            advance=1,
            description=f"{outcome.name}, seed {outcome.seed}: best of {epochs} was {outcome.best}",
        )

    def print_report(self, report: TrainingReport, *, json: bool) -> None:
        """A row for every training, and their mean."""
        name, rows = score_outcomes(report.study, report.outcomes)
        test = np.array([row["test"] for row in rows], np.float64)
        known = test[np.isfinite(test)]
        mean = float(known.mean()) if len(known) else None
        if json:
            excluded = [f"{each.slide}: {each.reason}" for each in report.study.cohort.excluded]
            print_json(
                {
                    "out": str(report.out),
                    "figure": name,
                    "mean": mean,
                    "trainings": rows,
                    "excluded": excluded,
                    "warnings": list(report.warnings),
                }
            )
            return
        table = Table("training", "epochs", f"validation {name}", f"test {name}", box=None)
        for row in rows:
            figures = (f"{row[part]:.3f}" for part in ("validation", "test"))
            table.add_row(str(row["training"]), str(row["epochs"]), *figures)
        console = Console(highlight=False)
        console.print(table)
        for warning in report.warnings:
            console.print(f"Note: {warning}", markup=False)
        left = len(report.study.cohort.excluded)
        console.print(
            f"Mean test {name}: {'none' if mean is None else f'{mean:.3f}'}; "
            f"{len(report.study.cohort)} slides, {left} left out.\n"
            f"Weights, metrics and predictions: {report.out}\n{RESEARCH_USE}",
            markup=False,
        )


def score_outcomes(
    study: Study, outcomes: tuple[Outcome, ...]
) -> tuple[str, list[dict[str, object]]]:
    """One figure for each training: AUC, concordance, or the mean absolute error."""
    bags = make_bags(study, study.open())
    kind = study.cohort.target.kind

    def score(units: np.ndarray, predictions: np.ndarray) -> float:
        labels = bags.labels[units]
        try:
            if kind == "survival":
                return harrell_concordance(labels, bags.events[units], predictions[:, 0]).value
            if kind == "number":
                return float(np.abs(labels - predictions[:, 0]).mean())
            if predictions.shape[1] == 2:
                return auc(labels == 1, predictions[:, 1])
            return multiclass_auc(labels.astype(np.int64), predictions)
        except UsageError:  # one class only, or no two patients to compare
            return float("nan")

    names = {"survival": "concordance", "number": "mean absolute error"}
    rows: list[dict[str, object]] = [
        {
            "training": f"{each.name}, seed {each.seed}",
            "epochs": len(each.history),
            "validation": score(each.validation, each.validation_predictions),
            "test": score(each.test, each.predictions),
        }
        for each in outcomes
    ]
    return names.get(kind, "AUC"), rows
