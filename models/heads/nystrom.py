"""Self-attention of linear cost by landmarks (Xiong et al., Nystromformer, AAAI 2021)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from slidetriage.errors import UsageError

from .contract import check_count, check_dropout


class Landmarks(NamedTuple):
    """A sequence made ready for attention; A heads of d numbers, M landmarks."""

    query: Tensor
    """B x A x N x d, scaled."""
    key: Tensor
    """B x A x N x d."""
    value: Tensor
    """B x A x N x d."""
    query_mean: Tensor
    """B x A x M x d."""
    key_mean: Tensor
    """B x A x M x d."""
    inverse: Tensor
    """B x A x M x M."""


class NystromAttention(nn.Module):
    r"""Self-attention through the means of M stretches of the sequence.

    Xiong, Zeng, Chakraborty, Tan, Fung, Li and Singh, "Nystromformer: A Nystrom-based Algorithm for
    Approximating Self-Attention", AAAI 2021 (arXiv:2102.03902), equations 13 to 15, with means ~Q
    and ~K of the queries and keys, and a convolution of the values along the sequence, one kernel
    for each head:

        S(Q, K) V  ~  S(Q, ~K) S(~Q, ~K)^+ (S(~Q, K) V) + conv(V)
        S(X, Y)    =  softmax(X Y^T / sqrt(d))

    A sequence that M does not divide gets zeros in front, which take part, as in the implementation
    that TransMIL uses. The product is taken from the right, by attention kernels that need not hold
    its N x M matrices; `row` makes one of them, for one head at a time.
    """

    def __init__(
        self,
        size: int,
        *,
        heads: int = 8,
        landmarks: int = 256,
        iterations: int = 6,
        kernel: int = 33,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if check_count("size", size) % check_count("heads", heads):
            raise UsageError(
                f"{size} numbers cannot be parted into {heads} heads.",
                mend="Choose a size that the number of heads divides.",
            )
        if check_count("kernel", kernel) % 2 == 0:
            raise UsageError(f"The kernel must be odd, not {kernel}.", mend=f"Choose {kernel + 1}.")
        self.heads = heads
        self.landmarks = check_count("landmarks", landmarks)
        self.iterations = check_count("iterations", iterations)
        self.project = nn.Linear(size, 3 * size, bias=False)
        self.residual = nn.Conv2d(
            heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False
        )
        self.out = nn.Linear(size, size)
        self.dropout = nn.Dropout(check_dropout(dropout))

    def prepare(self, sequence: Tensor) -> Landmarks:
        """B x N x H -> its queries, keys, values and landmarks, with N filled up in front."""
        fill = -sequence.shape[1] % self.landmarks
        sequence = functional.pad(sequence, (0, 0, fill, 0))  # B x N x H
        parts = self.project(sequence).unflatten(-1, (3, self.heads, -1))  # B x N x 3 x A x d
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # B x A x N x d
        query = query / query.shape[-1] ** 0.5  # B x A x N x d
        query_mean, key_mean = (
            part.unflatten(2, (self.landmarks, -1)).mean(dim=3) for part in (query, key)
        )  # B x A x M x d
        # Half precision is too coarse for the inverse.
        with torch.autocast(sequence.device.type, enabled=False):
            precise = torch.promote_types(query.dtype, torch.float32)
            between = query_mean.to(precise) @ key_mean.to(precise).transpose(-1, -2)
            inverse = pseudo_inverse(between.softmax(-1), self.iterations)  # B x A x M x M
        return Landmarks(query, key, value, query_mean, key_mean, inverse.to(query.dtype))

    def mix(self, parts: Landmarks, length: int) -> Tensor:
        """The attended sequence, B x `length` x H, without what was filled in."""
        attend = functional.scaled_dot_product_attention
        gathered = attend(parts.query_mean, parts.key, parts.value, scale=1.0)  # B x A x M x d
        gathered = parts.inverse @ gathered  # B x A x M x d
        mixed = attend(parts.query, parts.key_mean, gathered, scale=1.0)  # B x A x N x d
        mixed = mixed + self.residual(parts.value)  # B x A x N x d
        mixed = mixed[:, :, -length:].transpose(1, 2).flatten(2)  # B x length x H
        out: Tensor = self.dropout(self.out(mixed))  # B x length x H
        return out

    def row(self, parts: Landmarks, length: int) -> Tensor:
        """What the first of the last `length` tokens attends to: B x A x `length`, any sign."""
        first = parts.query[:, :, -length, None]  # B x A x 1 x d
        near = (first @ parts.key_mean.transpose(-1, -2)).softmax(
            -1
        ) @ parts.inverse  # B x A x 1 x M
        rows = []
        for head in range(self.heads):  # one head at a time: M x N numbers each
            among = parts.query_mean[:, head] @ parts.key[:, head].transpose(-1, -2)  # B x M x N
            rows.append(near[:, head] @ among.softmax(-1))  # B x 1 x N
        return torch.cat(rows, dim=1)[..., -length:]


def pseudo_inverse(matrix: Tensor, iterations: int) -> Tensor:
    """Moore-Penrose inverse of ... x A x M x M matrices by the iteration of equation 11.

    The start is scaled by the largest sums over all A matrices, as in the implementation that
    TransMIL uses.
    """
    size = matrix.abs()  # B x A x M x M
    largest = size.sum(-1).amax((-1, -2)) * size.sum(-2).amax((-1, -2))  # B
    inverse = matrix.transpose(-1, -2) / largest[..., None, None, None]  # B x A x M x M
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)  # M x M
    for _ in range(iterations):
        product = matrix @ inverse  # B x A x M x M
        step = 13 * one - product @ (15 * one - product @ (7 * one - product))  # B x A x M x M
        inverse = inverse @ step / 4  # B x A x M x M
    return inverse
