"""Several classes against scikit-learn."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from sklearn import metrics

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import class_balanced_accuracy, class_confusion, multiclass_auc


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_auc_against_scikit_learn(average: Literal["macro", "weighted"]) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 200)
    raw = rng.random((200, 4)) + np.eye(4)[label] * 0.5
    score = raw / raw.sum(axis=1, keepdims=True)
    wanted = metrics.roc_auc_score(label, score, multi_class="ovr", average=average)
    assert multiclass_auc(label, score, average=average) == pytest.approx(wanted)


def test_bad_input() -> None:
    score = np.full((3, 3), 1 / 3)
    with pytest.raises(UsageError, match="Class 2 has no rows"):
        multiclass_auc([0, 1, 1], score)
    with pytest.raises(UsageError, match="not a class number from 0 to 2 in 1 of 3"):
        multiclass_auc([0, 1, 3], score)
    with pytest.raises(UsageError, match="2 rows where the table has 3"):
        class_confusion([0, 1], score)
    with pytest.raises(UsageError, match="no rows"):
        class_balanced_accuracy([], np.zeros((0, 3)))


def test_confusion_against_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    raw = rng.random((150, 4))
    score = raw / raw.sum(axis=1, keepdims=True)
    label, called = rng.integers(0, 3, 150), score.argmax(axis=1)  # class 3 does not occur
    found = class_confusion(label, score)
    assert found.tolist() == metrics.confusion_matrix(label, called, labels=range(4)).tolist()
    wanted = metrics.recall_score(label, called, labels=range(3), average="macro")
    assert class_balanced_accuracy(label, score) == pytest.approx(wanted)
