"""Tile models of others behind one face: tiles in, probabilities out, and who they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.bundle import Bundle
from slidetriage.models.eager import split_batches
from slidetriage.models.encoder import check_images
from slidetriage.models.tile_network import TileTransform

Classifier = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""B x 3 x P x P normalised -> B x K, always for the same B."""


class TileScorer(Protocol):
    """What a bundle and a tile model of others have in common."""

    @property
    def identity(self) -> str:
        """A digest that changes whenever scores may change; results state it."""

    def tile_scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of the positive class for each of N x H x W x 3 uint8 tiles.

        A tile's score depends on no other tile.
        """


@dataclass(frozen=True, slots=True)
class TileModelCard:
    """What must be known of a tile model to use it; its file does not say all of it."""

    name: str
    mpp: float
    """Micrometres per pixel of the tiles it was made for."""
    tile_px: int
    class_names: tuple[str, ...]
    positive: str
    """The class whose probability the scores are."""
    output: Literal["logits", "probabilities"]
    """What the network gives; logits of one class go through a sigmoid, of more, a softmax."""
    input_px: int
    """Side to which tiles are resized."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        names = self.class_names
        rules = {
            "mpp (above 0)": self.mpp > 0,
            "tile_px and input_px (1 to 4096)": min(self.tile_px, self.input_px) >= 1
            and max(self.tile_px, self.input_px) <= 4096,
            "class_names (one or more, none twice)": names and len(set(names)) == len(names),
            "positive (one of class_names)": self.positive in names,
            "std (above 0)": min(self.std) > 0,
        }
        for field, holds in rules.items():
            if not holds:
                raise ModelError(f"{self.name}: {field} is impossible.", mend="Correct the card.")


@dataclass(frozen=True, slots=True, eq=False)
class TileModel:
    """A tile model of others, ready to use; the `load_` functions make one."""

    card: TileModelCard
    identity: str
    """SHA-256 over the model's file or files and how it is used."""
    batch_tiles: int
    """Tiles per pass; the last is padded to it, so that no score depends on other tiles."""
    classify: Classifier

    def tile_scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of `card.positive` for each of N x tile_px x tile_px x 3 uint8 tiles.

        The tiles are RGB at `card.mpp`. Raises as `class_probabilities` does.
        """
        column = self.card.class_names.index(self.card.positive)
        return np.ascontiguousarray(self.class_probabilities(images)[:, column])

    def class_probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """N x K probabilities of `card.class_names`.

        Raises `UsageError` for other arrays, and `ModelError` if the network gives another number
        of classes, what are no probabilities, or impossible numbers (E_MODEL_NAN).
        """
        card = self.card
        check_images(images)
        if images.shape[1:3] != (card.tile_px, card.tile_px):
            height, width = images.shape[1:3]
            raise UsageError(
                f"{card.name} takes tiles of {card.tile_px} px, not {height} x {width}.",
                mend=f"Cut tiles of {card.tile_px} px at {card.mpp:g} um/px.",
            )
        found = np.empty((len(images), len(card.class_names)), np.float32)
        transform = TileTransform(card.input_px, card.interpolation, card.mean, card.std)
        for rows, batch in split_batches(images, self.batch_tiles):
            with torch.inference_mode():
                x = transform(torch.from_numpy(batch)).contiguous().numpy()
            out = self._as_probabilities(self.classify(x))
            found[rows] = out[: rows.stop - rows.start]
        return found

    def _as_probabilities(self, out: NDArray[np.float32]) -> NDArray[np.float32]:
        card = self.card
        tiles, classes = self.batch_tiles, len(card.class_names)
        if out.size != tiles * classes or out.shape[:1] != (tiles,):
            raise ModelError(
                f"{card.name} gives {out.shape} numbers for {tiles} tiles, but its card names "
                f"{classes} classes.",
                mend="Correct class_names; the order is that of the network.",
            )
        out = out.reshape(tiles, classes).astype(np.float32, copy=False)
        if not np.isfinite(out).all():
            raise ModelError(
                f"{card.name} met impossible numbers in its output.",
                mend="Check the model; these results must not be used.",
                code="E_MODEL_NAN",
            )
        if card.output == "logits":
            scores = torch.from_numpy(out)
            return (scores.sigmoid() if out.shape[1] == 1 else scores.softmax(1)).numpy()
        sums = out.sum(axis=1) if out.shape[1] > 1 else np.ones(len(out), np.float32)
        if out.min() < 0 or out.max() > 1.0001 or np.abs(sums - 1).max() > 0.001:
            raise ModelError(
                f"{card.name} gives numbers that are no probabilities.",
                mend="Its card should say output='logits'.",
            )
        return out.clip(0, 1)


def _is_scorer(model: Bundle | TileModel) -> TileScorer:
    """Lets the type checker prove that both fit."""
    return model
