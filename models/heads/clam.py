"""CLAM, attention with clustering of the tiles it looks at (Lu et al., Nature BME 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from slidetriage.errors import UsageError

from .attention import AttentionLogits, masked_softmax
from .contract import Head, HeadOutput, check_count, check_dropout, check_labels


class ClamHead(Head):
    r"""Gated attention for all classes or for each class, with clustering of instances.

    Lu, Williamson, Chen, Chen, Barbieri and Mahmood, "Data-efficient and weakly supervised
    computational pathology on whole-slide images", Nature Biomedical Engineering 5 (2021)
    (arXiv:2004.09666). For the features f_n of tile n and the class k:

        h_n   = ReLU(E f_n + e)
        a_kn  = softmax_n(w_k^T (tanh(V h_n) * sigm(U h_n)))
        z_k   = sum_n a_kn h_n
        slide logit_k  = C_k z_k + c_k
        tile logit_nk  = C_k h_n + c_k

    CLAM-SB (`multi_branch=False`) has one attention for all classes, CLAM-MB one for each; with a
    single output they are the same. The tile logit comes from the slide classifier, not from the
    instance classifiers below, which learn nothing from targets without classes.

    `auxiliary_loss` is the paper's instance clustering. Each class m has an instance classifier
    p_m(h) of two logits (out of the class, in the class), and B = `sampled` tiles. For the class of
    the slide the B most attended tiles are in it and the B least attended are out of it. With
    `subtyping` (classes that exclude each other) the B most attended tiles are out of every other
    class, and the sum over classes is divided by their number. The loss of one classifier is the
    mean over its tiles. Shorter bags use all their tiles, so that a tile may then be in both sets,
    as in the authors' code.

    `instance_loss` is "svm", the smooth top-1 SVM (Berrada, Zisserman and Kumar, ICLR 2018,
    arXiv:1802.07595) with margin and temperature 1, which the paper uses, or "ce", cross entropy,
    which the authors' script takes when told nothing:

        svm(s, y) = log sum_j exp(s_j + [j != y]) - s_y

    The sizes are the authors' "small" model.
    """

    auxiliary_weight = 0.3

    def __init__(  # noqa: PLR0913  (each is an option of the paper, all by keyword)
        self,
        features: int,
        outputs: int,
        *,
        multi_branch: bool = False,
        hidden: int = 512,
        attention: int = 256,
        dropout: float = 0.25,
        sampled: int = 8,
        subtyping: bool = False,
        instance_loss: Literal["svm", "ce"] = "svm",
    ) -> None:
        super().__init__(features, outputs)
        if instance_loss not in ("svm", "ce"):
            raise UsageError(
                f"There is no instance loss {instance_loss!r}.", mend="Choose svm or ce."
            )
        self.sampled = check_count("sampled", sampled)
        self.subtyping = subtyping
        self.instance_loss = instance_loss
        self.embed = nn.Linear(features, check_count("hidden", hidden))
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.branches = outputs if multi_branch else 1
        self.attend = AttentionLogits(
            hidden, attention, gated=True, branches=self.branches, dropout=dropout
        )
        self.classify = nn.Linear(hidden, outputs)
        # A single output still tells two classes apart.
        self.instances = nn.ModuleList(nn.Linear(hidden, 2) for _ in range(max(2, outputs)))

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding of a slide: those of its branches one after the other."""
        return self.branches * self.classify.in_features

    def score_bags(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score B x N x D features."""
        h = self._embed(features)  # B x N x H
        attention = masked_softmax(self.attend(h), mask)  # B x branches x N
        z = attention @ h  # B x branches x H
        weights = self.classify.weight  # K x H
        slide_logit = (z * weights).sum(-1) if self.branches > 1 else z[:, 0] @ weights.T  # B x K
        return HeadOutput(
            slide_logit + self.classify.bias,
            attention.mean(dim=1),
            self.classify(h),
            z.flatten(1),
            attention if self.branches > 1 else None,
        )

    def auxiliary_loss(
        self, output: HeadOutput, features: Tensor, mask: Tensor, label: Tensor | None
    ) -> Tensor:
        """Instance clustering loss of each bag; zeros where there are no labels."""
        if label is None:
            return super().auxiliary_loss(output, features, mask, label)
        classes = check_labels(label, len(features), len(self.instances)).tolist()
        attention = output.class_attention  # B x K x N
        if attention is None:
            attention = output.attention[:, None]  # B x 1 x N
        losses = [
            self._cluster(attention[bag][:, mask[bag]], features[bag][mask[bag]], classes[bag])
            for bag in range(len(features))
        ]
        return torch.stack(losses)  # B

    def _cluster(self, attention: Tensor, features: Tensor, label: int) -> Tensor:
        """Loss of one bag: branches x N, N x D and the class of the slide."""
        count = min(self.sampled, len(features))
        losses = []
        for index, classifier in enumerate(self.instances):
            weight = attention[min(index, len(attention) - 1)].detach()  # N
            chosen = weight.topk(count).indices  # S
            target = torch.full_like(chosen, int(index == label))  # S
            if index == label:
                least = weight.topk(count, largest=False).indices  # S
                chosen = torch.cat([chosen, least])  # 2 S
                target = torch.cat([target, torch.zeros_like(least)])  # 2 S
            elif not self.subtyping:
                continue
            losses.append(self._instance_loss(classifier(self._embed(features[chosen])), target))
        return torch.stack(losses).sum() / (len(self.instances) if self.subtyping else 1)

    def _instance_loss(self, logit: Tensor, target: Tensor) -> Tensor:
        if self.instance_loss == "ce":
            return functional.cross_entropy(logit, target)
        own = functional.one_hot(target, logit.shape[1])  # S x 2
        return (torch.logsumexp(logit + 1 - own, dim=1) - (logit * own).sum(dim=1)).mean()

    def _embed(self, features: Tensor) -> Tensor:
        h: Tensor = self.dropout(torch.relu(self.embed(features)))  # ... x H
        return h
