"""The card of a trained detector: what it is, what it learned from and how well it measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
from torch import Tensor

from slidetriage.errors import ModelError
from slidetriage.models.card import DataSource, WeightsCard
from slidetriage.models.fields import read_fields, write_fields
from slidetriage.models.weights import Weights, read_weights

from .decoding import Decoding

_MAX_CARD_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class DetectionTraining:
    """How the weights came about; enough to train them again."""

    data: tuple[DataSource, ...]
    started_from: str
    seed: int
    split_seed: int
    recipe: Mapping[str, object]
    learned_from: tuple[str, ...]
    """Names of the images."""
    held_out: tuple[str, ...]
    """Drawn before training; no choice was made on them."""
    machine: str


@dataclass(frozen=True, slots=True)
class DetectionFigure:
    """One measured figure."""

    name: str
    value: float
    measured_on: str


@dataclass(frozen=True, slots=True)
class DetectorCard:
    """Everything a user and the pipeline must know of a detector; `card.json` holds this."""

    schema_version: Literal[1]
    name: str
    version: str
    summary: str
    intended_use: str
    licence: str
    stain: str
    mpp: float
    """Micrometres per pixel of the images that it is made for."""
    mpp_range: tuple[float, float]
    margin_px: int
    """How far from a nucleus pixels may change its outline."""
    usual_diameter_px: float
    """Median nuclei of this diameter are outlined best."""
    widths: tuple[int, int, int]
    """Of the network's decoder."""
    decoding: Decoding
    training: DetectionTraining
    metrics: tuple[DetectionFigure, ...]
    limits: tuple[str, ...]
    weights: WeightsCard

    def __post_init__(self) -> None:
        _check(self)

    def to_json(self) -> str:
        """The text of `card.json`."""
        return json.dumps(write_fields(self), indent=2, ensure_ascii=False) + "\n"


def read_detector(directory: Path) -> tuple[DetectorCard, Weights, str]:
    """Read card.json and the weights it names, and the hash of both.

    Raises `ModelError` that says what is wrong; SHA-256 and header are checked before use.
    """
    path = directory / "card.json"
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CARD_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}).",
            mend="A detector is a directory with card.json and weights.safetensors.",
        ) from error
    if len(text) > _MAX_CARD_BYTES:
        raise ModelError(f"{path} is larger than 1 MiB.", mend="That is no card; check the path.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path.name} is not valid JSON ({error}).", mend="Fetch the detector again."
        ) from error
    card = read_fields(DetectorCard, value, where="card")
    weights = read_weights(directory / card.weights.file, sha256=card.weights.sha256)
    both = hashlib.sha256(hashlib.sha256(text).digest() + bytes.fromhex(weights.sha256))
    return card, weights, both.hexdigest()


def save_detector(
    directory: Path, card: DetectorCard, tensors: Mapping[str, Tensor]
) -> DetectorCard:
    """Write card and weights, and return the card with the weights' SHA-256.

    Each file appears whole or not at all.
    """
    data = safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})
    card = dataclasses.replace(
        card, weights=WeightsCard("weights.safetensors", hashlib.sha256(data).hexdigest())
    )
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in ((card.weights.file, data), ("card.json", card.to_json().encode())):
        staged = directory / f".{name}.partial"
        staged.write_bytes(content)
        os.replace(staged, directory / name)
    return card


def _check(card: DetectorCard) -> None:
    """Raise `ModelError` where values are well-typed but impossible."""
    low, high = card.mpp_range
    decoding = card.decoding
    rules = {
        "name (lower-case letters, digits, hyphens)": re.fullmatch(
            r"[a-z0-9][a-z0-9-]*", card.name
        ),
        "mpp_range (around mpp, above 0)": 0 < low <= card.mpp <= high,
        "margin_px (0 to 1024)": 0 <= card.margin_px <= 1024,
        "usual_diameter_px (1 to 1024)": 1 <= card.usual_diameter_px <= 1024,
        "widths (1 to 1024)": all(1 <= width <= 1024 for width in card.widths),
        "decoding.inside (1 to 255)": 1 <= decoding.inside <= 255,
        "decoding.certainty (0 to 255)": 0 <= decoding.certainty <= 255,
        "decoding.dip (1 to 255)": 1 <= decoding.dip <= 255,
        "decoding.least_peak (0 to 255)": 0 <= decoding.least_peak <= 255,
        "decoding.soften (0 to 16)": 0 <= decoding.soften <= 16,
        "decoding (areas of 0 or more)": min(decoding.least_area_px, decoding.hole_px) >= 0,
        "weights.sha256 (64 hex digits)": re.fullmatch(r"[0-9a-f]{64}", card.weights.sha256),
    }
    for field, holds in rules.items():
        if not holds:
            raise ModelError(f"card.{field}: the value is impossible.", mend="Correct the card.")
