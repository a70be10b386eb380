"""Encoders to extract features with: a bundle's, one given by files, or one that is made anew.

A source travels to the workers and makes the encoder there, so it is a value that pickles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError
from slidetriage.models import (
    Device,
    EncoderCard,
    RuntimeChoice,
    StainCard,
    TileEncoder,
    load_bundle,
    load_encoder,
)
from slidetriage.models.fields import read_fields

MAX_CARD_BYTES = 2**20
MAX_TARGET_PX = 2**22


@dataclass(frozen=True, slots=True)
class TileCard:
    """The tiles that an encoder is for."""

    name: str
    mpp: float
    """Micrometres per pixel of a tile."""
    mpp_range: tuple[float, float]
    """Micrometres per pixel of level 0 that will do; a coarser slide is refused."""
    tile_px: int

    def __post_init__(self) -> None:
        low, high = self.mpp_range
        if not (0 < low <= self.mpp <= high and 1 <= self.tile_px <= 4096):
            raise ModelError(
                f"{self.name}: tiles of {self.tile_px} px at {self.mpp:g} um/px ({low:g} to "
                f"{high:g}) cannot be.",
                mend="mpp must lie within mpp_range above 0, and tile_px between 1 and 4096.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class TileModel:
    """An encoder ready to use, with what a station must know of it."""

    card: TileCard
    encoder: TileEncoder
    registered: str = ""
    """Its name in the registry, if it was opened by that."""
    stain: StainCard | None = None
    """Whose colours tiles are given before they are encoded."""

    @property
    def identity(self) -> str:
        """Name if registered, architecture, hashes of weights, transform, stain; files state it."""
        made_of = self.encoder.identifier
        if self.stain is not None:
            told = json.dumps([self.stain.method, *self.stain.numbers]).encode()
            made_of += f"+{self.stain.method}-{hashlib.sha256(told).hexdigest()[:16]}"
        return f"{self.registered}:{made_of}" if self.registered else made_of

    def prepare(self) -> RuntimeChoice:
        """Compile the encoder and compare it with torch in float32; `encode` does it if needed."""
        return self.encoder.prepare(self.card.tile_px, self.card.tile_px)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode N x tile_px x tile_px x 3 uint8 RGB tiles to N x D features.

        Raises `ModelError` (E_MODEL_NAN) for features that are not finite.
        """
        if self.stain is not None:
            from slidetriage.models.foreign.stain import normaliser_of

            images = normaliser_of(self.stain)(images)
        features = self.encoder.encode(images)
        if not np.isfinite(features).all():
            raise ModelError(
                f"{self.card.name} gave features that are not finite.",
                mend="Check the weights and the precision; --precision float32 is the safest.",
                code="E_MODEL_NAN",
            )
        return features


EncoderSource = Callable[[Device], TileModel]
"""Makes the encoder on a device; must pickle, for it is sent to every worker."""


@dataclass(frozen=True, slots=True)
class BundleEncoder:
    """The encoder of a bundle, without its head."""

    model: str
    """Name of a shipped bundle, or the folder of one."""

    def __call__(self, device: Device) -> TileModel:
        """Load the bundle; raises `ModelError` where that fails."""
        bundle = load_bundle(self.model, device=device)
        card = bundle.card
        tiles = TileCard(card.name, card.mpp, card.mpp_range, card.tile_px)
        return TileModel(tiles, bundle.encoder, stain=card.stain_normaliser)


@dataclass(frozen=True, slots=True)
class StainedEncoder:
    """Another encoder, whose tiles are given the colours of a target first."""

    source: EncoderSource
    stain: StainCard

    def __call__(self, device: Device) -> TileModel:
        """Make the encoder; raises `ModelError` where it normalises stains already."""
        model = self.source(device)
        if model.stain is not None:
            raise ModelError(
                f"{model.card.name} normalises stains already, by {model.stain.method}.",
                mend="Leave --stain-target out.",
            )
        return replace(model, stain=self.stain)


def fit_stain(method: str, target: Path) -> StainCard:
    """Learn the colours of an image: one RGB tile full of well stained tissue.

    Raises `UsageError` for another method, and where the image cannot be read or is mostly glass.
    """
    from PIL import Image, UnidentifiedImageError

    from slidetriage.models.foreign.stain import fit_normaliser, stain_card

    try:
        with Image.open(target) as image:
            if image.width * image.height > MAX_TARGET_PX:
                raise UsageError(
                    f"{target} is {image.width} x {image.height} px.",
                    mend="Give one tile as the target of stains, of at most 4 megapixels.",
                )
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{target}: the target of stains cannot be read ({error}).", mend="Give a PNG or JPEG."
        ) from error
    return stain_card(fit_normaliser(method, pixels))  # type: ignore[arg-type]  # it checks


@dataclass(frozen=True, slots=True)
class EncoderFile:
    """What a JSON file says of an encoder whose weights lie in a file of their own."""

    schema_version: Literal[1]
    tiles: TileCard
    encoder: EncoderCard
    weights_sha256: str
    """Of the weights, or empty to take any; the features name the one that was taken."""

    @classmethod
    def read(cls, path: Path) -> EncoderFile:
        """Read the file strictly; raises `ModelError` that names the field that is wrong."""
        try:
            with path.open("rb") as file:
                text = file.read(MAX_CARD_BYTES + 1)
            if len(text) > MAX_CARD_BYTES:
                raise ModelError(f"{path} is larger than 1 MiB.", mend="That is no card.")
            value = json.loads(text)
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}).") from error
        except RecursionError as error:
            raise ModelError(f"{path} is not valid JSON.", mend="Correct it.") from error
        except ValueError as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{path} is not valid JSON ({error}).", mend="Correct it.") from error
        return read_fields(cls, value, where=path.name)


@dataclass(frozen=True, slots=True)
class FileEncoder:
    """Any architecture of timm, given by a JSON card and a local safetensors file."""

    card: Path
    weights: Path

    def __call__(self, device: Device) -> TileModel:
        """Read both; raises `ModelError` where they do not belong together."""
        told = EncoderFile.read(self.card)
        encoder = load_encoder(
            told.encoder, self.weights, sha256=told.weights_sha256 or None, device=device
        )
        return TileModel(told.tiles, encoder)


@dataclass(frozen=True, slots=True)
class MadeEncoder:
    """An encoder that a function makes."""

    make: Callable[[Device], TileEncoder]
    """Must pickle."""
    tiles: TileCard

    def __call__(self, device: Device) -> TileModel:
        """Make the encoder."""
        return TileModel(self.tiles, self.make(device))
