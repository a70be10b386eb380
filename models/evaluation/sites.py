"""Splits by site: folds that keep each site whole, and one round for each site left out.

A model can learn the site from the stain (Howard et al. 2021); scores on patients of sites that
it was trained on then promise too much. A site wholly in one fold shows what a new site gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.models.trust.inputs import as_names, as_patients, refuse

from .intervals import Rows
from .splits import patient_strata

FEWEST_ROWS = 10
"""Rows below which a site is warned of: its own figure says nothing."""

_EXHAUSTIVE = 50_000
_STARTS = 20


@dataclass(frozen=True, slots=True, eq=False)
class SiteFolds:
    """Folds that keep sites whole."""

    fold: NDArray[np.int64]
    """Of each of N rows, 0 to folds - 1."""
    imbalance: float
    """Largest difference, over folds and labels with as many patients as folds, between the share
    of the label's patients in the fold and 1 / folds; 0 is best."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SiteRound:
    """One site left out."""

    site: str
    train: Rows
    test: Rows
    warning: str
    """Empty, or why the site's own figure says little."""


def site_folds(
    sites: ArrayLike,
    label: ArrayLike | None,
    patients: ArrayLike,
    *,
    folds: int = 3,
    seed: int,
) -> SiteFolds:
    """Folds of whole sites with the labels as evenly spread as can be found.

    What is made small is the chi-square of the table of folds and labels: the sum of
    (patients - expected)^2 / expected over both, expected being a label's patients / folds. It is
    the quadratic programme of Howard et al. with the labels weighed, so that a rare one is not lost
    and one with two patients does not rule. All assignments are tried where there are at most
    50,000; otherwise twenty random starts are each improved by moving one site or swapping two
    until neither helps.

    Raises
    ------
    UsageError
        Fewer sites than folds, a missing site, a patient at two sites.
    """
    names, site_of_row, labels, counts = _table(sites, label, patients)
    if folds < 2 or len(names) < folds:
        raise refuse(
            f"{len(names)} sites cannot fill {folds} folds.",
            "Ask for at least 2 folds and for no more than there are sites.",
            "E_SPLIT",
        )
    total = counts.sum(axis=0)  # L
    weighed = counts / np.sqrt(total)  # S x L
    if folds ** (len(names) - 1) <= _EXHAUSTIVE:
        best = _try_all(weighed, folds)
    else:
        best = _search(weighed, folds, np.random.default_rng(seed))
    held = _spread(counts, best, folds)  # folds x L
    warnings = [w for site, rows in _rows_by_site(names, site_of_row) if (w := _warn(site, rows))]
    warnings += [
        f"{empty} of {folds} folds have no patient with the label {name}"
        for name, empty in zip(labels, (held == 0).sum(axis=0).tolist(), strict=True)
        if empty
    ]
    off = np.abs(held / total - 1 / folds)[:, total >= folds]
    return SiteFolds(best[site_of_row], float(off.max(initial=0)), tuple(warnings))


def leave_site_out(
    sites: ArrayLike, label: ArrayLike | None, patients: ArrayLike
) -> tuple[SiteRound, ...]:
    """For each site, all others to train on and it to test on, sites in alphabetical order."""
    names, site_of_row, _, _ = _table(sites, label, patients)
    if len(names) < 2:
        raise refuse("There is only one site.", "Split by patient.", "E_SPLIT")
    labels = None if label is None else as_names(label, "label")
    rounds = []
    for site, rows in _rows_by_site(names, site_of_row):
        warning = _warn(site, rows)
        if labels is not None and len(np.unique(labels[rows])) < 2:
            warning = warning or f"site {site} holds one label only"
        rounds.append(
            SiteRound(site, np.setdiff1d(np.arange(len(site_of_row)), rows), rows, warning)
        )
    return tuple(rounds)


def _table(
    sites: ArrayLike, label: ArrayLike | None, patients: ArrayLike
) -> tuple[list[str], NDArray[np.intp], list[str], NDArray[np.float64]]:
    """Sites, the site of each row, labels, and S x L counts of patients who hold the label."""
    people = as_patients(patients)
    site = as_names(sites, "site", count=len(people))
    missing = np.flatnonzero(site == "")
    if len(missing):
        raise refuse(
            f"site is missing in {len(missing)} rows, first in row {missing[0]} (from 0).",
            "Name the site of these rows or leave them out.",
        )
    names, site_of_row = np.unique(site, return_inverse=True)
    unique, first, number = np.unique(people, return_index=True, return_inverse=True)
    elsewhere = np.flatnonzero(site_of_row != site_of_row[first][number])
    if len(elsewhere):
        row = elsewhere[0]
        raise refuse(
            f"Patient {people[row]} is at site {site[first[number[row]]]} and at {site[row]}.",
            "Give the patient one site, or leave the patient out.",
            "E_SPLIT",
        )
    strata = patient_strata(number, len(unique), label)
    labels = sorted({held for stratum in strata for held in stratum})
    counts = np.zeros((len(names), len(labels)))
    for home, stratum in zip(site_of_row[first], strata, strict=True):
        counts[home, [labels.index(held) for held in stratum]] += 1
    return names.tolist(), site_of_row, labels, counts


def _spread(
    counts: NDArray[np.float64], fold: NDArray[np.int64], folds: int
) -> NDArray[np.float64]:
    """Folds x L: what each fold holds of each label."""
    total = np.zeros((folds, counts.shape[1]))
    np.add.at(total, fold, counts)
    return total


def _cost(weighed: NDArray[np.float64], fold: NDArray[np.int64], folds: int) -> float:
    off = _spread(weighed, fold, folds) - weighed.sum(axis=0) / folds
    return float((off**2).sum())


def _try_all(weighed: NDArray[np.float64], folds: int) -> NDArray[np.int64]:
    """The best of all assignments; the first site stays in fold 0, since folds are alike."""
    count = folds ** (len(weighed) - 1)
    places = np.unravel_index(np.arange(count), (folds,) * (len(weighed) - 1))
    every = np.stack([np.zeros(count, np.int64), *places], axis=1)  # A x S
    held = every[:, :, None] == np.arange(folds)  # A x S x folds
    spread = np.einsum("asf,sl->afl", held, weighed)
    cost = ((spread - weighed.sum(axis=0) / folds) ** 2).sum(axis=(1, 2))
    cost[~held.any(axis=1).all(axis=1)] = np.inf  # no fold may be empty
    return np.asarray(every[int(np.argmin(cost))])


def _search(
    weighed: NDArray[np.float64], folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    found = []
    for _ in range(_STARTS):
        start = rng.permutation(np.arange(len(weighed)) % folds).astype(np.int64)
        found.append(_descend(weighed, start, folds))
    return min(found, key=lambda fold: _cost(weighed, fold, folds))


def _descend(
    weighed: NDArray[np.float64], fold: NDArray[np.int64], folds: int
) -> NDArray[np.int64]:
    """Take the best move or swap until none makes the cost smaller.

    Taking x (a site's row, or the difference of two sites') from fold a to fold b changes the cost
    by 2 x (t_b - t_a) + 2 |x|^2, where t is what a fold holds. No fold is ever emptied:
    where t_a = x that is 2 x t_b, not below 0.
    """
    fold = fold.copy()
    sites = np.arange(len(weighed))
    difference = weighed[:, None] - weighed[None, :]  # S x S x L
    while True:
        total = _spread(weighed, fold, folds)  # folds x L
        way = total[None, :] - total[fold][:, None]  # S x folds x L
        moves = 2 * (weighed[:, None] * way).sum(axis=2) + 2 * (weighed**2).sum(axis=1)[:, None]
        moves[sites, fold] = np.inf
        swaps = 2 * (difference * way[:, fold]).sum(axis=2) + 2 * (difference**2).sum(axis=2)
        swaps[fold[:, None] == fold[None, :]] = np.inf
        if min(moves.min(), swaps.min()) > -1e-9:
            return fold
        if moves.min() <= swaps.min():
            site, target = np.unravel_index(int(np.argmin(moves)), moves.shape)
            fold[site] = target
        else:
            one, other = np.unravel_index(int(np.argmin(swaps)), swaps.shape)
            fold[one], fold[other] = fold[other], fold[one]


def _rows_by_site(names: list[str], site_of_row: NDArray[np.intp]) -> list[tuple[str, Rows]]:
    return [(name, np.flatnonzero(site_of_row == i)) for i, name in enumerate(names)]


def _warn(site: str, rows: Rows) -> str:
    return f"site {site} has only {len(rows)} rows" if len(rows) < FEWEST_ROWS else ""
