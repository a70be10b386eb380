"""A bundle: one card, one encoder and one head that belong together; arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError

from .attention import GatedAttentionHead
from .card import Card
from .encoder import TileEncoder, check_images
from .precision import RuntimeChoice
from .predictions import Bag, BagPrediction
from .streaming import ROWS, HeadStream


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model ready to use; `load_bundle` makes one."""

    card: Card
    encoder: TileEncoder
    head: GatedAttentionHead
    identity: str
    """SHA-256 over card and weights; results state it."""

    def prepare(self) -> RuntimeChoice:
        """Compile the encoder and compare it with torch in float32, or tell what came of that.

        `encode` does it when needed. The choice is no part of the bundle's identity.
        """
        side = self.card.tile_px
        return self.encoder.prepare(side, side, score=self._score_all)

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
        if len(images):
            self.prepare()
        return self._finite(self.encoder.encode(images), "features")

    def score_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of the positive class for each row of N x D features, each on its own."""
        self._check_features(features)
        return self._finite(self._score_all(features), "tile scores")

    def tile_scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of the positive class for each of N x tile_px x tile_px x 3 uint8 tiles.

        The tiles are RGB at the card's mpp. A tile's score depends on no other tile.
        """
        return self.score_features(self.encode(images))

    def predict(self, bag: Bag) -> BagPrediction:
        """Score a slide from the features of its tiles; raises `ModelError` for an empty bag."""
        self._check_features(bag.features)
        return self.predict_stream([bag.features])

    def predict_stream(self, parts: Iterable[NDArray[np.float32]]) -> BagPrediction:
        """Score a slide whose features come in parts, of which one is held at a time.

        The result does not depend on where the features are parted, to the byte.

        Parameters
        ----------
        parts
            N_i x D features in tile order; a row with NaN is a tile that could not be read.

        Returns
        -------
        The prediction for all rows together; attention and score are NaN where the row is.

        Raises
        ------
        ModelError
            No tile was read, or there are impossible numbers (E_MODEL_NAN).
        UsageError
            The features are not those of this bundle's encoder.
        """
        stream = HeadStream(self.head, self.encoder.device)
        known: list[NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
        for part in parts:
            self._check_kind(part)
            read = np.asarray(~np.isnan(part).any(axis=1))
            known.append(read)
            stream.feed(self._finite(part if read.all() else part[read], "features"))
        read = np.concatenate(known)
        if not read.any():
            raise ModelError(
                "The bag is empty: no tile of the slide was read.",
                mend="Check the tissue mask; a slide without tissue has no score.",
            )
        found = stream.finish()
        self._finite(np.array([found.probability], np.float32), "slide score")
        return BagPrediction(
            found.probability,
            _spread(self._finite(found.attention, "attention"), read),
            _spread(self._finite(found.tile_scores, "tile scores"), read),
        )

    def _score_all(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty(len(features), np.float32)
        for start in range(0, len(features), ROWS):
            part = features[start : start + ROWS]
            rows = np.zeros((ROWS, features.shape[1]), np.float32)
            rows[: len(part)] = part
            scores[start : start + len(part)] = self._score(rows)[: len(part)]
        return scores

    @torch.inference_mode()
    def _score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        logit = self.head.tile_logit(torch.from_numpy(rows).to(self.encoder.device))
        return logit.sigmoid().cpu().numpy()

    def _check_features(self, features: NDArray[np.float32]) -> None:
        self._check_kind(features)
        self._finite(features, "features")

    def _check_kind(self, features: NDArray[np.float32]) -> None:
        size = self.encoder.feature_size
        if features.dtype != np.float32 or features.ndim != 2 or features.shape[1] != size:
            raise UsageError(
                f"Features must be float32, N x {size}, not {features.dtype}, {features.shape}.",
                mend=f"Use the features that {self.encoder.card.name} of this bundle gave.",
            )

    def _finite(self, values: NDArray[np.float32], what: str) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self.card.name} {self.card.version} met impossible numbers in its {what}.",
                mend="Check the weights and the device; these results must not be used.",
                code="E_MODEL_NAN",
            )
        return values


def _spread(values: NDArray[np.float32], read: NDArray[np.bool_]) -> NDArray[np.float32]:
    """One value per row that was read -> one per row, NaN where it was not."""
    rows = np.full(len(read), np.nan, np.float32)
    rows[read] = values
    return rows
