"""Losses for the time until an event that not every patient has had yet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cox_loss(risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Cox's negative log partial likelihood per event, with Efron's treatment of ties.

    With D_t the patients whose event was at time t, d of them, and R_t those seen at t or later
    (Efron, "The efficiency of Cox's likelihood function for censored data", JASA 1977):

        l = sum over t of [sum_{i in D_t} r_i
            - sum_{l < d} log(sum_{j in R_t} exp(r_j) - l / d sum_{i in D_t} exp(r_i))]

    Parameters
    ----------
    risk
        B log hazards.
    time
        B times of the event or of last sight.
    event
        B bool.

    Returns
    -------
    -l / number of events; 0, with a gradient of 0, where there is none.
    """
    risk = risk.double()
    total = risk.sum() * 0
    for moment in torch.unique(time[event]):
        seen = time >= moment  # B, the risk set
        dying = (event & (time == moment))[seen]
        count = int(dying.sum())
        largest = risk.detach()[seen].max()  # sums of exponentials do not overflow
        weight = (risk[seen] - largest).exp()
        share = torch.arange(count, device=risk.device, dtype=risk.dtype) / count  # d
        sums = weight.sum() - share * weight[dying].sum()  # d
        total = total + risk[seen][dying].sum() - sums.log().sum() - count * largest
    return -total / max(1, int(event.sum()))


def discrete_time_loss(logits: Tensor, interval: Tensor, event: Tensor) -> Tensor:
    """Mean negative log likelihood of a hazard for each interval of time.

    With hazards h_k = sigm(logit_k), a patient with an event in interval k has the likelihood
    h_k prod_{j<k} (1 - h_j), and one last seen in k without it prod_{j<=k} (1 - h_j) (Zadeh and
    Schmid, "Bias in cross-entropy-based training of deep survival networks", TPAMI 2021).

    Parameters
    ----------
    logits
        B x T.
    interval
        B, 0 to T - 1: of the event or of last sight.
    event
        B bool.
    """
    place = torch.arange(logits.shape[1], device=logits.device)  # T
    survived = (place < interval[:, None]) | ((place == interval[:, None]) & ~event[:, None])
    fatal = (place == interval[:, None]) & event[:, None]  # B x T
    # log(1 - h) = -softplus(logit), log h = -softplus(-logit)
    loss = survived * functional.softplus(logits) + fatal * functional.softplus(-logits)
    return loss.sum(1).mean()


def interval_of(time: Tensor, edges: Tensor) -> Tensor:
    """B times -> the numbers of their intervals; an edge belongs to the interval it begins."""
    return torch.bucketize(time, edges.to(time.dtype), right=True)
