"""Many trainings of a study, side by side: folds and seeds as tasks, here or on a Dask cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import numpy as np
from dask.distributed import Client, as_completed
from numpy.typing import NDArray

from slidetriage.models.evaluation import Split, patient_folds
from slidetriage.workflows.distribution import connect
from slidetriage.workflows.processes import Process, start_cluster
from slidetriage.workflows.resources import Resources
from slidetriage.workflows.template import METHOD, start_template

from .study import Study
from .trainings import Outcome, Training, run_training


def list_trainings(
    study: Study, rounds: Iterable[tuple[str, Split]], *, seeds: Sequence[int], out: Path
) -> list[Training]:
    """A training for each split and seed, each with a folder of its own."""
    return [
        Training(study, name, split, seed, out / f"{name.replace(' ', '-')}-seed-{seed}")
        for name, split in rounds
        for seed in seeds
    ]


def run_trainings(
    trainings: Sequence[Training],
    resources: Resources,
    *,
    follow: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Carry out all, in any order; the outcomes are in the order given.

    The first error ends it; trainings that were done are not done again the next time.
    """
    outcomes: dict[int, Outcome] = {}
    if resources.engine == "serial":
        for number, training in enumerate(trainings):
            outcomes[number] = run_training(training)
            if follow is not None:
                follow(outcomes[number])
    else:
        with _open_client(resources, len(trainings)) as client:
            futures = {
                client.submit(run_training, training, pure=False): number
                for number, training in enumerate(trainings)
            }
            for future in as_completed(futures):
                number = futures[future]
                outcomes[number] = future.result()
                if follow is not None:
                    follow(outcomes[number])
                future.release()
    return [outcomes[number] for number in range(len(trainings))]


def draw_rounds(study: Study, *, folds: int, seed: int) -> list[tuple[str, Split]]:
    """Folds by patient, stratified by the label or the event; validation is drawn from the rest."""
    fold = patient_folds(unit_patients(study), unit_strata(study), folds=folds, seed=seed)
    return [
        (f"fold {k}", split_round(study, np.flatnonzero(fold == k), seed=seed))
        for k in range(folds)
    ]


def split_round(
    study: Study, test: NDArray[np.int64], *, seed: int, validation_share: float = 0.2
) -> Split:
    """Test on these units, and part the patients of the others into training and validation."""
    units = np.arange(len(study.units()))
    rest = np.setdiff1d(units, test)
    strata = unit_strata(study)
    inner = patient_folds(
        unit_patients(study)[rest],
        None if strata is None else strata[rest],
        folds=max(2, round(1 / validation_share)),
        seed=seed,
    )
    return Split(rest[inner != 0], rest[inner == 0], test)


def unit_patients(study: Study) -> NDArray[np.str_]:
    """The patient of each unit."""
    return np.array([study.cohort.patients[rows[0]] for rows in study.units()])


def unit_strata(study: Study) -> NDArray[np.int64] | None:
    """What folds are stratified by: the class or the event of each unit, or nothing."""
    first = np.array([rows[0] for rows in study.units()])
    cohort = study.cohort
    if cohort.target.kind == "classes" and cohort.labels is not None:
        return np.asarray(cohort.labels[first], np.int64)
    if cohort.events is not None:
        return np.asarray(cohort.events[first], np.int64)
    return None


@contextmanager
def _open_client(resources: Resources, tasks: int) -> Iterator[Client]:
    """Worker processes of one thread each on this machine, or those of a running scheduler."""
    # Dask tells of every connection made and closed.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if resources.scheduler is not None:
            yield stack.enter_context(connect(resources.scheduler))
            return
        start_template()
        stack.enter_context(dask.config.set({"distributed.worker.multiprocessing-method": METHOD}))
        count = min(tasks, resources.workers or dask.system.CPU_COUNT)
        cluster = stack.enter_context(start_cluster((Process(1),) * max(1, count)))
        yield stack.enter_context(Client(cluster))
