"""A bag of any length through the head, block by block: a few numbers a tile are kept."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .attention import GatedAttentionHead
from .predictions import BagPrediction

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


class HeadStream:
    """Feeds tiles to a head in blocks of `ROWS`, however many come at a time."""

    def __init__(self, head: GatedAttentionHead, device: torch.device) -> None:
        self._head = head
        self._device = device
        self._pool = AttentionPool()
        self._scores: list[NDArray[np.float32]] = []
        self._rows = np.zeros((ROWS, head.embed.in_features), np.float32)
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
        z = torch.from_numpy(self._pool.mean().astype(np.float32)).to(self._device)  # H
        probability = self._head.slide(z).sigmoid().cpu().numpy()  # 1
        scores = np.concatenate(self._scores)
        return BagPrediction(float(probability[0]), self._pool.attention(), scores)

    @torch.inference_mode()
    def _flush(self) -> None:
        self._rows[self._filled :] = 0
        features = torch.from_numpy(self._rows).to(self._device)  # ROWS x D
        h, logit = self._head.embed_tiles(features)  # ROWS x H, ROWS
        score = self._head.tile_logit(features).sigmoid()  # ROWS
        # Copies: what was kept must not hold on to the whole block.
        logits, vectors, scores = (
            part.cpu().numpy()[: self._filled].copy() for part in (logit, h, score)
        )
        self._pool.add(logits, vectors)
        self._scores.append(scores)
        self._filled = 0
