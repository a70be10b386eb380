"""A bundle: one card, one encoder and one head that belong together; arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError

from .attention import GatedAttentionHead
from .card import Card
from .encoder import TileEncoder, check_images
from .predictions import Bag, BagPrediction

_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model ready to use; `load_bundle` makes one."""

    card: Card
    encoder: TileEncoder
    head: GatedAttentionHead
    identity: str
    """SHA-256 over card and weights; results state it."""

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode N x tile_px x tile_px x 3 uint8 RGB tiles at the card's mpp to N x D features.

        Raises `UsageError` for other arrays and `ModelError` (E_MODEL_NAN) for impossible numbers.
        """
        check_images(images)
        side = self.card.tile_px
        if images.shape[1:3] != (side, side):
            height, width = images.shape[1:3]
            raise UsageError(
                f"{self.card.name} takes tiles of {side} x {side} px, not {height} x {width}.",
                mend=f"Cut tiles of {side} px at {self.card.mpp:g} um/px.",
            )
        return self._finite(self.encoder.encode(images), "features")

    def score_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of the positive class for each row of N x D features, each on its own."""
        self._check_features(features)
        scores = np.empty(len(features), np.float32)
        for start in range(0, len(features), _ROWS):
            part = features[start : start + _ROWS]
            # One shape only: sums may be ordered otherwise for another number of rows.
            rows = np.zeros((_ROWS, features.shape[1]), np.float32)
            rows[: len(part)] = part
            scores[start : start + len(part)] = self._score(rows)[: len(part)]
        return self._finite(scores, "tile scores")

    def tile_scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of the positive class for each of N x tile_px x tile_px x 3 uint8 tiles.

        The tiles are RGB at the card's mpp. A tile's score depends on no other tile.
        """
        return self.score_features(self.encode(images))

    @torch.inference_mode()
    def predict(self, bag: Bag) -> BagPrediction:
        """Score a slide from the features of its tiles; raises `ModelError` for an empty bag."""
        if len(bag) == 0:
            raise ModelError(
                "The bag is empty: no tile of the slide was read.",
                mend="Check the tissue mask; a slide without tissue has no score.",
            )
        tile_scores = self.score_features(bag.features)
        features = torch.from_numpy(bag.features).to(self.encoder.device)[None]  # 1 x N x D
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)  # 1 x N
        output = self.head(features, mask)
        attention = self._finite(output.attention[0].cpu().numpy(), "attention")
        probability = self._finite(output.slide_logit.sigmoid().cpu().numpy(), "slide score")
        return BagPrediction(float(probability[0]), attention, tile_scores)

    @torch.inference_mode()
    def _score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        logit = self.head.tile_logit(torch.from_numpy(rows).to(self.encoder.device))
        return logit.sigmoid().cpu().numpy()

    def _check_features(self, features: NDArray[np.float32]) -> None:
        size = self.encoder.feature_size
        if features.dtype != np.float32 or features.ndim != 2 or features.shape[1] != size:
            raise UsageError(
                f"Features must be float32, N x {size}, not {features.dtype}, {features.shape}.",
                mend=f"Use the features that {self.encoder.card.name} of this bundle gave.",
            )
        self._finite(features, "features")

    def _finite(self, values: NDArray[np.float32], what: str) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self.card.name} {self.card.version} met impossible numbers in its {what}.",
                mend="Check the weights and the device; these results must not be used.",
                code="E_MODEL_NAN",
            )
        return values
