"""How often the one at higher risk fares worse: Harrell's and Uno's concordance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import UsageError
from slidetriage.models.trust.inputs import as_numbers, refuse

from .survival import as_survival, kaplan_meier

_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Concordance:
    """Share of usable pairs in which the higher risk had the earlier event; ties count half."""

    value: float
    concordant: int
    discordant: int
    tied_risk: int


def harrell_concordance(time: ArrayLike, event: ArrayLike, risk: ArrayLike) -> Concordance:
    """Harrell's (1996) concordance of N risks (higher = worse) with N times and events.

    A pair is usable if the earlier time is an event, or if at equal times only one is an event;
    two events at the same time tell nothing.
    """
    times, events = as_survival(time, event)
    risks = as_numbers(risk, "risk", count=len(times))
    counts = np.zeros(3, np.int64)
    for pairs in _pairs(times, events, risks):
        counts += [int(pairs.right.sum()), int(pairs.wrong.sum()), int(pairs.tied.sum())]
    concordant, discordant, tied = counts.tolist()
    usable = concordant + discordant + tied
    if not usable:
        raise _no_pairs()
    return Concordance((concordant + tied / 2) / usable, concordant, discordant, tied)


def uno_concordance(
    time: ArrayLike, event: ArrayLike, risk: ArrayLike, *, horizon: float | None = None
) -> float:
    """Uno's (2011) concordance: pairs weighted by the chance that censoring left them to be seen.

    Its limit does not depend on who was censored when, as Harrell's does. A pair whose event
    comes at t, before `horizon` (default: all), weighs 1 / G(t)^2, with G the share not yet
    censored just before t (Kaplan-Meier, on these rows; at equal times events come first).
    """
    times, events = as_survival(time, event)
    risks = as_numbers(risk, "risk", count=len(times))
    # Who has an event at t can no longer be censored at t.
    gone = np.where(events, np.nextafter(times, -1).clip(min=0), times)
    uncensored = kaplan_meier(gone, ~events)
    good = total = 0.0
    for pairs in _pairs(times, events, risks):
        weight = uncensored.before(pairs.time) ** -2.0  # block
        if horizon is not None:
            weight = np.where(pairs.time < horizon, weight, 0.0)
        good += float(weight @ (pairs.right + pairs.tied / 2))
        total += float(weight @ (pairs.right + pairs.wrong + pairs.tied))
    if total == 0:
        raise _no_pairs()
    return good / total


class _Pairs(NamedTuple):
    """Usable pairs of a block of events with everybody, counted for each event."""

    time: NDArray[np.float64]
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]
    tied: NDArray[np.int64]


def _pairs(
    times: NDArray[np.float64], events: NDArray[np.bool_], risks: NDArray[np.float64]
) -> Iterator[_Pairs]:
    """Only a row with an event can be the earlier of a pair, so events x N pairs are enough."""
    when, own = times[events], risks[events]
    block = max(1, _PAIRS_AT_ONCE // len(times))
    for first in range(0, len(when), block):
        here = when[first : first + block]
        risk = own[first : first + block, None]  # block x 1
        usable = (times > here[:, None]) | ((times == here[:, None]) & ~events)  # block x N
        yield _Pairs(
            here,
            (usable & (risk > risks)).sum(axis=1),
            (usable & (risk < risks)).sum(axis=1),
            (usable & (risk == risks)).sum(axis=1),
        )


def _no_pairs() -> UsageError:
    return refuse(
        "No pair of rows can be compared: too few events.",
        "Bring rows with events, and some that lived longer.",
        code="E_SURVIVAL",
    )
