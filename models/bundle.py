"""A bundle: one card, one encoder and one head that belong together; arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError

from .card import Card
from .encoder import TileEncoder, check_images
from .precision import RuntimeChoice
from .predictions import Bag, BagPrediction
from .slide_head import SlideHead
from .streaming import ROWS, HeadStream, one_thread
from .trust import NoveltyReference, slide_distance


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A model ready to use; `load_bundle` makes one."""

    card: Card
    encoder: TileEncoder
    head: SlideHead
    identity: str
    """SHA-256 over card and weights; results state it."""
    novelty: NoveltyReference | None = None
    normalise: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    """Gives tiles the colours that the encoder is used to."""

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
            if self.normalise is not None:
                images = self.normalise(images)
        return self._finite(self.encoder.encode(images), "features")

    def score_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of the positive class for each row of N x D features.

        Each row is scored on its own, unless the head knows tiles only in their bag (`tile_wise`):
        then the rows are one.
        """
        self._check_features(features)
        return self._finite(self._score_all(features), "tile scores")

    def tile_scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of the positive class for each of N x tile_px x tile_px x 3 uint8 tiles.

        The tiles are RGB at the card's mpp (see `score_features`).
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
        novelty: list[NDArray[np.float32]] = []
        known: list[NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
        for part in parts:
            self._check_kind(part)
            read = np.asarray(~np.isnan(part).any(axis=1))
            known.append(read)
            features = self._finite(part if read.all() else part[read], "features")
            stream.feed(features)
            if self.novelty is not None:
                novelty.append(self._distance(features))
        read = np.concatenate(known)
        if not read.any():
            raise ModelError(
                "The bag is empty: no tile of the slide was read.",
                mend="Check the tissue mask; a slide without tissue has no score.",
            )
        return self._describe(stream.finish(), read, novelty)

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """How far each of N x D features lies from those the model learned from, or None."""
        self._check_features(features)
        return None if self.novelty is None else self._distance(features)

    def _describe(
        self, found: BagPrediction, read: NDArray[np.bool_], novelty: list[NDArray[np.float32]]
    ) -> BagPrediction:
        """What the head said, calibrated, with a row for every tile that was planned."""
        self._finite(np.array([found.uncalibrated], np.float32), "slide score")
        probability, calibration = found.uncalibrated, self.card.calibration
        if calibration is not None:
            probability = float(calibration.apply([probability])[0])
        distances = distance = None
        if self.card.novelty is not None and novelty:
            every = np.concatenate(novelty)
            distances = _spread(every, read)
            distance = round(slide_distance(every, quantile=self.card.novelty.quantile), 4)
        return BagPrediction(
            probability,
            found.uncalibrated,
            _spread(self._finite(found.attention, "attention"), read),
            _spread(self._finite(found.tile_scores, "tile scores"), read),
            distances,
            distance,
        )

    def _distance(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Distances to four decimals, beyond which the ordering of sums could show."""
        assert self.novelty is not None
        return np.round(self.novelty.distance(features), 4) if len(features) else features[:, 0]

    def _score_all(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.head.tile_wise:
            with one_thread():
                return self._score(features) if len(features) else features[:, 0]
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
