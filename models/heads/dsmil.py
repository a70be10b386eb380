"""DSMIL, attention to the tile with the highest score (Li, Li and Eliceiri, CVPR 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from slidetriage.errors import ModelError

from .attention import masked_softmax
from .contract import Head, HeadOutput, check_count, check_dropout, check_labels

PUBLISHED = {
    "i_classifier.fc.0.weight": "instance.weight",
    "i_classifier.fc.0.bias": "instance.bias",
    "b_classifier.q.0.weight": "query.0.weight",
    "b_classifier.q.0.bias": "query.0.bias",
    "b_classifier.q.2.weight": "query.2.weight",
    "b_classifier.q.2.bias": "query.2.bias",
    "b_classifier.fcc.weight": "classify.weight",
    "b_classifier.fcc.bias": "classify.bias",
}
"""Names in the authors' aggregators -> names here."""


class DualStreamHead(Head):
    r"""Slide logits from the highest tile and from all tiles as they resemble it.

    Li, Li and Eliceiri, "Dual-stream Multiple Instance Learning Network for Whole Slide Image
    Classification with Self-supervised Contrastive Learning", CVPR 2021 (arXiv:2011.08939). For the
    features f_n of tile n and each output k, with q of length Q:

        s_nk  = w_k^T f_n + w_k0                        instance stream
        m_k   = argmax_n s_nk                           critical tile
        q_n   = tanh(Q_2 relu(Q_1 f_n)),  v_n = f_n     (biases in Q_1 and Q_2)
        a_kn  = softmax_n(q_n . q_mk / sqrt(Q))
        b_k   = sum_n a_kn v_n
        bag_k = sum_j W_kj . b_j + c_k                  bag stream
        slide logit_k  = (s_mk + bag_k) / 2
        tile logit_nk  = s_nk

    The default is the network whose weights the authors publish. `nonlinear_query=False` gives the
    q_n = Q_1 f_n of the paper's text; `project_values=True` gives v_n = relu(V f_n + v_0), with
    dropout on f_n, as the authors' code offers. The mean of the two streams is the paper's slide
    score. The authors' test script for Camelyon16 takes the bag stream alone: `average=False`, with
    which the instance stream learns from `auxiliary_loss` only.

    `auxiliary_loss` is the binary cross entropy of the highest tile for each class, averaged over
    classes; the authors give both streams half of the loss.
    """

    auxiliary_weight = 0.5

    def __init__(  # noqa: PLR0913  (each is an option of the authors' code, all by keyword)
        self,
        features: int,
        outputs: int,
        *,
        query: int = 128,
        nonlinear_query: bool = True,
        project_values: bool = False,
        dropout: float = 0.0,
        average: bool = True,
    ) -> None:
        super().__init__(features, outputs)
        check_count("query", query)
        self.average = average
        self.instance = nn.Linear(features, outputs)
        self.query: nn.Module = nn.Linear(features, query)
        if nonlinear_query:
            self.query = nn.Sequential(self.query, nn.ReLU(), nn.Linear(query, query), nn.Tanh())
        self.value: nn.Module = nn.Identity()
        check_dropout(dropout)
        if project_values:
            self.value = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(features, features), nn.ReLU()
            )
        # The authors' convolution over whole rows, which mixes the classes.
        self.classify = nn.Linear(outputs * features, outputs)

    @classmethod
    def from_published(
        cls, state: Mapping[str, Tensor], *, average: bool = False
    ) -> DualStreamHead:
        """Build the head that an aggregator published by the authors describes.

        Parameters
        ----------
        state
            The tensors of an aggregator of github.com/binli123/dsmil-wsi (MIT), such as the one
            for Camelyon16.
        average
            As for the head; the authors' script for these weights takes the bag stream alone.

        Raises
        ------
        ModelError
            Tensors are missing, unknown or of shapes that do not go together.
        """
        if set(state) != set(PUBLISHED):
            raise ModelError(
                f"Not an aggregator of DSMIL: missing {sorted(set(PUBLISHED) - set(state))}, "
                f"unknown {sorted(set(state) - set(PUBLISHED))}.",
                mend="Give the state dict of an aggregator with a nonlinear query.",
            )
        renamed = {PUBLISHED[name]: tensor for name, tensor in state.items()}
        try:
            outputs, features = renamed["instance.weight"].shape
            query = len(renamed["query.0.bias"])
            renamed["classify.weight"] = renamed["classify.weight"].flatten(1)  # K x K D
            head = cls(features, outputs, query=query, average=average)
            head.load_state_dict(renamed)
        except (RuntimeError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise ModelError(
                f"The tensors of this aggregator do not go together: {said}",
                mend="Give the state dict as it was published.",
            ) from error
        return head

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding of a slide: K bags of D, then K critical tiles if averaged."""
        return self.outputs * self.features * (2 if self.average else 1)

    def score_bags(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score B x N x D features."""
        score = self.instance(features)  # B x N x K
        critical = _highest(score.detach(), mask)  # B x K
        query = self.query(features)  # B x N x Q
        logit = query @ _rows(query, critical).transpose(1, 2)  # B x N x K
        attention = masked_softmax(logit / math.sqrt(query.shape[-1]), mask)  # B x K x N
        bag = attention @ self.value(features)  # B x K x D
        slide_logit = self.classify(bag.flatten(1))  # B x K
        embedding = bag  # B x K x D
        if self.average:
            highest = score.gather(1, critical[:, None]).squeeze(1)  # B x K
            slide_logit = (slide_logit + highest) / 2  # B x K
            embedding = torch.cat([bag, _rows(features, critical)], dim=1)  # B x 2 K x D
        return HeadOutput(
            slide_logit, attention.mean(dim=1), score, embedding.flatten(1), attention
        )

    def auxiliary_loss(
        self, output: HeadOutput, features: Tensor, mask: Tensor, label: Tensor | None
    ) -> Tensor:
        """Binary cross entropy of the highest tile; zeros where there are no labels."""
        if label is None:
            return super().auxiliary_loss(output, features, mask, label)
        check_labels(label, len(features), max(2, self.outputs))
        score = output.tile_logit  # B x N x K
        highest = score.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)  # B x K
        single = self.outputs == 1
        target = label[:, None] if single else functional.one_hot(label, self.outputs)  # B x K
        loss = functional.binary_cross_entropy_with_logits(
            highest, target.to(highest.dtype), reduction="none"
        )  # B x K
        return loss.mean(dim=1)


def _highest(score: Tensor, mask: Tensor) -> Tensor:
    """B x N x K -> B x K; the tile with the highest score of each output."""
    return score.masked_fill(~mask[..., None], -torch.inf).argmax(dim=1)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """B x N x D values at B x K positions -> B x K x D."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
