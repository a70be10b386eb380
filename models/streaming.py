"""A bag of any length through the head, block by block: a few numbers a tile are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .heads import AttentionHead
from .predictions import BagPrediction
from .slide_head import SlideHead

ROWS = 256
"""Tiles per pass through the head; the last pass is padded with zeros. One shape only: sums may be
ordered otherwise for another number of rows."""


class AttentionPool:
    """The mean of vectors weighted by the softmax of their logits, from one pass over them.

    The sums are kept relative to the largest logit so far and scaled down when a larger one comes
    (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867), in
    double precision.
    """

    def __init__(self) -> None:
        self._largest = -np.inf
        self._weight = 0.0
        self._total: NDArray[np.float64] | None = None
        self._logits: list[NDArray[np.float32]] = []

    def add(self, logits: NDArray[np.float32], vectors: NDArray[np.float32]) -> None:
        """Take N logits with their N x H vectors; equal blocks in equal order give equal bytes."""
        self._logits.append(logits)
        # Impossible numbers go through to the result, where they are noticed.
        largest = float(np.maximum(self._largest, logits.max()))
        with np.errstate(invalid="ignore", over="ignore"):
            share = np.exp(logits.astype(np.float64) - largest)
            # Not a product of matrices, whose order of summing depends on the number of threads.
            weighed = (share[:, None] * vectors).sum(axis=0)
            before = float(np.exp(self._largest - largest))
            self._weight = self._weight * before + float(share.sum())
            self._total = weighed if self._total is None else self._total * before + weighed
        self._largest = largest

    def mean(self) -> NDArray[np.float64]:
        """H; of everything taken, of which there must be something."""
        if self._total is None:
            raise ValueError("nothing was added")
        return self._total / self._weight

    def attention(self) -> NDArray[np.float32]:
        """One weight per vector taken; sums to 1."""
        logits = np.concatenate(self._logits).astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.exp(logits - self._largest) / self._weight, np.float32)


class AttentionBag:
    """The head of gated or plain attention over a bag of which one block is held at a time."""

    def __init__(self, model: SlideHead, head: AttentionHead) -> None:
        self._model, self._head = model, head
        self._pool = AttentionPool()

    def add(self, block: Tensor, filled: int) -> None:
        """Take the first `filled` of ROWS x D features."""
        h = self._head.embed_tiles(self._model.standardise(block))  # ROWS x H
        logit = self._head.attend(h).squeeze(-1)  # ROWS
        self._pool.add(_copy(logit, filled), _copy(h, filled))

    def finish(self) -> tuple[Tensor, NDArray[np.float32], None]:
        """The slide's logit, and the attention of every tile; tiles are scored as they come."""
        z = torch.from_numpy(self._pool.mean().astype(np.float32)).to(self._model.mean.device)  # H
        return self._head.classify(z), self._pool.attention(), None


class WholeBag:
    """Any other head: its bag is held whole, N x D x 4 bytes, until it is scored."""

    def __init__(self, model: SlideHead) -> None:
        self._model = model
        self._blocks: list[NDArray[np.float32]] = []

    def add(self, block: Tensor, filled: int) -> None:
        """Take the first `filled` of ROWS x D features."""
        self._blocks.append(_copy(block, filled))

    def finish(self) -> tuple[Tensor, NDArray[np.float32], Tensor]:
        """The slide's logit, the attention of every tile, and their logits in this bag."""
        device = self._model.mean.device
        bag = torch.from_numpy(np.concatenate(self._blocks)).to(device)[None]  # 1 x N x D
        mask = torch.ones(bag.shape[:2], dtype=torch.bool, device=device)
        with one_thread():
            output = self._model(bag, mask)
        attention = output.attention[0].cpu().numpy()
        return output.slide_logit[0], attention, output.tile_logit[0, :, 0]


class HeadStream:
    """Feeds tiles to a head in blocks of `ROWS`, however many come at a time."""

    def __init__(self, model: SlideHead, device: torch.device) -> None:
        self._model = model
        self._device = device
        attention = type(model.head) is AttentionHead
        self._bag: AttentionBag | WholeBag = (
            AttentionBag(model, model.head)  # type: ignore[arg-type]  # as just asked
            if attention
            else WholeBag(model)
        )
        self._scores: list[NDArray[np.float32]] = []
        self._rows = np.zeros((ROWS, model.features), np.float32)
        self._filled = 0

    def feed(self, features: NDArray[np.float32]) -> None:
        """Take N x D features, all of them finite."""
        start = 0
        while start < len(features):
            taken = features[start : start + ROWS - self._filled]
            self._rows[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            start += len(taken)
            if self._filled == ROWS:
                self._flush()

    @torch.inference_mode()
    def finish(self) -> BagPrediction:
        """What the head says of all that was fed: at least one tile."""
        if self._filled:
            self._flush()
        logit, attention, tile_logit = self._bag.finish()
        probability = float(logit.sigmoid().cpu().numpy()[0])
        if self._model.tile_wise or tile_logit is None:
            scores = np.concatenate(self._scores)
        else:
            scores = tile_logit.sigmoid().cpu().numpy()
        return BagPrediction(probability, probability, attention, scores)

    @torch.inference_mode()
    def _flush(self) -> None:
        self._rows[self._filled :] = 0
        features = torch.from_numpy(self._rows).to(self._device)  # ROWS x D
        self._bag.add(features, self._filled)
        if self._model.tile_wise:
            self._scores.append(_copy(self._model.tile_logit(features).sigmoid(), self._filled))
        self._filled = 0


def _copy(values: Tensor, filled: int) -> NDArray[np.float32]:
    """A copy: what is kept must not hold on to the whole block."""
    return values.cpu().numpy()[:filled].copy()


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums over a whole bag may be ordered otherwise with more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
