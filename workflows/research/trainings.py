"""One training of a study: on one split, from one seed, resumable, its result on disk."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import Split
from slidetriage.models.learning import Epoch, LabelledBags, Trained

from .study import Study, encode_covariates, fit_covariates, fit_target, make_bags

RESULT = "result.json"
WEIGHTS = "model.safetensors"
PROGRESS = "progress.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What one worker is asked to do."""

    study: Study
    name: str
    """Of the split, such as `fold 3`."""
    split: Split
    """Numbers of the study's units."""
    seed: int
    folder: Path
    """Where progress, weights and result are kept."""

    def key(self) -> str:
        """A hash of everything that decides the result."""
        parts = [part.tolist() for part in (self.split.train, self.split.validation)]
        facts = [self.study.key(), parts, self.split.test.tolist(), self.seed]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a training came to; predictions are those of units it did not learn from."""

    name: str
    seed: int
    validation: NDArray[np.int64]
    """V units."""
    validation_predictions: NDArray[np.float64]
    """V x P: probabilities of classes, a value, or a risk."""
    test: NDArray[np.int64]
    """T units."""
    predictions: NDArray[np.float64]
    """T x P."""
    history: tuple[Epoch, ...]
    best: int
    """Number of the epoch whose weights were kept."""
    seconds: float
    """Of computing; of what was resumed, the last part."""


def run_training(training: Training, follow: Callable[[Epoch], None] | None = None) -> Outcome:
    """Train, predict, and keep both in the training's folder; what was done before is read.

    Raises
    ------
    UsageError
        The features are damaged, or nothing can be learned from them.
    ModelError
        The training diverged (E_MODEL_NAN).
    """
    key = training.key()
    done = _read_outcome(training.folder / RESULT, key)
    if done is not None:
        return done
    start = perf_counter()
    bags = _keep_in_memory(make_bags(training.study, training.study.open()))
    trained, prediction = _train(training, bags, key, follow)
    split = training.split
    outcome = Outcome(
        training.name,
        training.seed,
        split.validation,
        prediction(split.validation),
        split.test,
        prediction(split.test),
        trained.history,
        trained.best,
        perf_counter() - start,
    )
    _write_outcome(training.folder, key, outcome)
    (training.folder / f"{key[:16]}-{PROGRESS}").unlink(missing_ok=True)
    return outcome


def read_outcome(training: Training) -> Outcome | None:
    """What `run_training` kept of exactly this training; None where there is nothing of it."""
    return _read_outcome(training.folder / RESULT, training.key())


def _train(
    training: Training, bags: LabelledBags, key: str, follow: Callable[[Epoch], None] | None
) -> tuple[Trained, Callable[[NDArray[np.int64]], NDArray[np.float64]]]:
    """The trained model, and what predicts units with it."""
    import safetensors.torch
    import torch

    from slidetriage.models.heads import build_head
    from slidetriage.models.learning import SlideModel, Task, predict_logits, train

    study, split, method = training.study, training.split, training.study.method
    coder = fit_covariates(study, split.train)
    if coder is not None:
        covariates = encode_covariates(study, coder)
        bags = LabelledBags(bags.load, bags.labels, bags.events, covariates)
    target = fit_target(study, bags, split.train)
    torch.set_num_threads(1)  # sums, and so the weights, depend on it; cores serve other trainings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        features = bags.load(int(split.train[0])).shape[1]
        head = build_head(method.head, features, target.outputs, **method.arguments)
        model = SlideModel(head, 0 if coder is None else len(coder.columns))
    if method.standardised:
        model.standardise(bags.load(int(unit)) for unit in split.train)
    training.folder.mkdir(parents=True, exist_ok=True)
    with _MetricsLog(training.folder) as log:

        def note(epoch: Epoch) -> None:
            log.write(epoch)
            if follow is not None:
                follow(epoch)

        trained = train(
            model,
            Task(target, bags.take(split.train), bags.take(split.validation)),
            method.recipe,
            seed=training.seed,
            checkpoint=training.folder / f"{key[:16]}-{PROGRESS}",
            follow=note,
        )
    safetensors.torch.save_file(model.state_dict(), training.folder / WEIGHTS)
    return trained, lambda units: target.predict(predict_logits(model, bags.take(units)))


class _MetricsLog:
    """Every epoch as a row of metrics.csv and as a point for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Epoch] = []
        self._board: Any = None

    def __enter__(self) -> _MetricsLog:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()

    def write(self, epoch: Epoch) -> None:
        """Add an epoch."""
        path = self._folder / "metrics.csv"
        fresh = epoch.number == 1 or not path.exists()
        with path.open("w" if fresh else "a", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(epoch)))
            if fresh:
                writer.writeheader()
            writer.writerow(asdict(epoch))
        for name in ("train_loss", "validation_loss", "rate"):
            self._board.add_scalar(name, getattr(epoch, name), epoch.number)


def _keep_in_memory(bags: LabelledBags) -> LabelledBags:
    """The same, with each bag read once as long as `MOST_KEPT_BYTES` hold them."""
    kept: dict[int, NDArray[np.float32]] = {}
    size = 0

    def load(unit: int) -> NDArray[np.float32]:
        nonlocal size
        if unit in kept:
            return kept[unit]
        features = bags.load(unit)
        if size + features.nbytes <= MOST_KEPT_BYTES:
            kept[unit] = features
            size += features.nbytes
        return features

    return LabelledBags(load, bags.labels, bags.events, bags.covariates)


MOST_KEPT_BYTES = 4 << 30
"""Features that one training holds in memory; the others are read anew each time."""


def _write_outcome(folder: Path, key: str, outcome: Outcome) -> None:
    record = asdict(outcome) | {"key": key}
    partial = folder / f".{RESULT}.partial"
    partial.write_bytes(orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY))
    os.replace(partial, folder / RESULT)


def _read_outcome(path: Path, key: str) -> Outcome | None:
    """What was written for the same key; None where there is nothing, or another's."""
    try:
        record = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}).", mend="Remove it to train again."
        ) from error
    if record.pop("key", None) != key:
        return None
    for name in ("validation", "test"):
        record[name] = np.array(record[name], np.int64)
    for name in ("validation_predictions", "predictions"):
        record[name] = np.array(record[name], np.float64)
    record["history"] = tuple(Epoch(**row) for row in record["history"])
    return Outcome(**record)
