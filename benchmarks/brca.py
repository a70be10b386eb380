"""The TCGA breast slides with their features, as studies for `mil.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.workflows.research.cohort import Target
from slidetriage.workflows.research.matching import match_features
from slidetriage.workflows.research.study import Method, Study, make_bags
from slidetriage.workflows.research.tables import ColumnNames, read_cohort

HIPT = "hipt-vit256-4k"
"""What made the features of tcga_brca; the file does not say."""


def study_tcga(data: Path, method: Method, covariates: Sequence[str] = ()) -> Study:
    """IDC and ILC slides that have features."""
    folder = data / "mil" / "tcga_brca"
    names = ColumnNames(
        slide="slide_id", patient="case_id", site="site", label="oncotree_code",
        covariates=tuple(covariates),
    )  # fmt: skip
    target = Target("classes", ("IDC", "ILC"))
    cohort = read_cohort(folder / "slides.csv", names, target, excuse=("other-label",))
    study = Study(cohort, folder / "bags.npz", HIPT, method)
    cohort = match_features(cohort, study.open(), excuse=("no-features",))
    return Study(cohort, study.features, HIPT, method)


def study_survival(data: Path, method: Method, covariates: Sequence[str] = ()) -> Study:
    """All patients with a time of follow-up."""
    folder = data / "mil" / "tcga_brca"
    names = ColumnNames(
        slide="slide_id", patient="case_id", site="site", time="survival_months",
        censored="censorship", covariates=tuple(covariates),
    )  # fmt: skip
    cohort = read_cohort(folder / "slides.csv", names, Target("survival"), excuse=("unlabelled",))
    study = Study(cohort, folder / "bags.npz", HIPT, method)
    cohort = match_features(cohort, study.open(), excuse=("no-features",))
    return Study(cohort, study.features, HIPT, method)


def pool_bags(study: Study) -> NDArray[np.float32]:
    """Mean, sd and max of each bag's features."""
    bags = make_bags(study, study.open())
    loaded = [bags.load(unit) for unit in range(len(bags))]
    return np.stack([np.concatenate([b.mean(0), b.std(0), b.max(0)]) for b in loaded])
