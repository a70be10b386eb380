"""The card of a bundle: what the model is, what it was made from and how well it measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slidetriage.errors import ModelError

from .fields import read_fields, write_fields
from .trust import Calibrator, ConformalRule

_MAX_CARD_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ClassCard:
    """One class the model tells apart."""

    name: str
    positive: bool
    """Exactly one class of a bundle is; scores are its probability."""
    qupath_class: str
    color: tuple[int, int, int]
    """Red, green, blue, 0 to 255, as QuPath should show it."""


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """The backbone and the transform its weights were made for."""

    name: str
    """An architecture known to timm."""
    arguments: Mapping[str, object]
    """Extra arguments of `timm.create_model`."""
    pooling: Literal["default", "class_and_mean"]
    feature_size: int
    input_px: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class EncoderReference:
    """An encoder whose weights are not in the bundle, because their licence forbids it."""

    backbone: str
    """A name of `models.foreign.list_backbones()`, with @commit where it is the hub's."""
    identifier: str
    """Of the encoder that the head was trained on; another one is refused."""


@dataclass(frozen=True, slots=True)
class HeadCard:
    """The head, and where the evidence of single tiles comes from."""

    kind: str
    """A name of `slidetriage.models.heads.list_heads()`."""
    arguments: Mapping[str, object]
    """Of the head, by keyword."""
    tile_classifier: bool
    """Whether tiles have a classifier of their own; otherwise a tile's score is what the head says
    of a bag of this tile alone."""


@dataclass(frozen=True, slots=True)
class StainCard:
    """Whose colours tiles are given before they are encoded (see `models.foreign.stain`)."""

    method: Literal["macenko", "vahadane", "reinhard"]
    numbers: tuple[float, ...]
    """Two stains of three densities and two concentrations; or three means and three deviations."""


@dataclass(frozen=True, slots=True)
class NoveltyCard:
    """When a slide is unlike what the model learned from; its reference lies with the weights."""

    limit: float
    """A slide further off than this is novel."""
    quantile: float
    """Of its tiles' distances, which is the distance of a slide."""
    kept: float
    """Share of familiar slides that do not exceed the limit."""
    tile_limit: float
    """What this share of familiar tiles do not exceed."""
    measured_on: str


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold, how it was chosen, and what it gave where it was measured."""

    value: float
    chosen: str
    """On which patients and by which rule."""
    measured_on: str
    sensitivity: float
    specificity: float


@dataclass(frozen=True, slots=True)
class DataSource:
    """Data the model learned from."""

    name: str
    source: str
    licence: str
    citations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingCard:
    """How the weights came about; enough to train them again."""

    data: tuple[DataSource, ...]
    started_from: str
    patients: int
    """Patients whose tiles the weights were fitted to."""
    tiles: int
    seed: int
    split_seed: int
    validation_patients: tuple[str, ...]
    test_patients: tuple[str, ...]
    """Drawn before training; no choice was made on them."""
    tile_stage: str
    bag_stage: str
    machine: str


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured figure with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    measured_on: str


@dataclass(frozen=True, slots=True)
class WeightsCard:
    """The file of weights the card speaks of."""

    file: Literal["weights.safetensors"]
    sha256: str


@dataclass(frozen=True, slots=True)
class Card:
    """Everything a user and the pipeline must know of a bundle; `card.json` holds exactly this."""

    schema_version: Literal[2]
    name: str
    version: str
    summary: str
    intended_use: str
    licence: str
    stain: str
    tissue: str
    classes: tuple[ClassCard, ...]
    mpp: float
    """Micrometres per pixel of the tiles the model was made for."""
    mpp_range: tuple[float, float]
    """Micrometres per pixel within which scores still hold; a coarser slide must be refused."""
    tile_px: int
    encoder: EncoderCard
    encoder_from: EncoderReference | None
    """None where the encoder's weights are in the bundle."""
    stain_normaliser: StainCard | None
    head: HeadCard
    calibration: Calibrator | None
    """From the head's probability to the slide's score; None where they are the same."""
    tile_threshold: OperatingPoint
    """A tile scored at least this belongs to a region."""
    slide_threshold: OperatingPoint
    """A slide scored at least this is flagged, where there is no conformal rule."""
    rule_out: OperatingPoint | None
    """A slide scored below this needs no look, at the sensitivity that was kept; None where too few
    positives were held out to say."""
    conformal: ConformalRule | None
    """From the score to flag, clear, or needs eyes; None where too few slides were held out."""
    novelty: NoveltyCard | None
    training: TrainingCard
    metrics: tuple[Metric, ...]
    limits: tuple[str, ...]
    weights: WeightsCard
    vendors: tuple[str, ...] | None = None
    """Scanners whose slides it was made from, by OpenSlide's names such as "aperio"; None where
    that is not known. A slide of another vendor needs eyes."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def positive(self) -> ClassCard:
        """The class whose probability the scores are."""
        return next(item for item in self.classes if item.positive)

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = "card") -> Card:
        """Read a card strictly; raises `ModelError` that names the first field that is wrong."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"{where} is not valid JSON ({error}).", mend="Fetch the bundle again."
            ) from error
        return read_fields(cls, value, where=where)

    def to_json(self) -> str:
        """The text of `card.json`."""
        return json.dumps(write_fields(self), indent=2, ensure_ascii=False) + "\n"


def read_card(path: Path) -> tuple[Card, bytes]:
    """Read `card.json` and the bytes it was read from."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CARD_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}).",
            mend="A bundle is a directory with card.json and weights.safetensors.",
        ) from error
    if len(text) > _MAX_CARD_BYTES:
        raise ModelError(f"{path} is larger than 4 MiB.", mend="That is no card; check the path.")
    return Card.from_json(text, where=path.name), text


def _check(card: Card) -> None:
    """Raise `ModelError` where values are well-typed but impossible."""
    low, high = card.mpp_range
    encoder = card.encoder
    rules = {
        "name (lower-case letters, digits, hyphens)": re.fullmatch(
            r"[a-z0-9][a-z0-9-]*", card.name
        ),
        "classes (exactly one positive)": sum(item.positive for item in card.classes) == 1,
        "classes.color (0 to 255)": all(0 <= c <= 255 for k in card.classes for c in k.color),
        "mpp_range (around mpp, above 0)": 0 < low <= card.mpp <= high,
        "tile_px (1 to 4096)": 1 <= card.tile_px <= 4096,
        "encoder.name (a plain architecture name)": re.fullmatch(r"[a-z0-9_]+", encoder.name),
        "encoder.input_px (1 to 4096)": 1 <= encoder.input_px <= 4096,
        "encoder.std (above 0)": min(encoder.std) > 0,
        "encoder.feature_size (1 to 65536)": 1 <= encoder.feature_size <= 65536,
        "head.kind (a plain name)": re.fullmatch(r"[a-z0-9_]+", card.head.kind),
        "conformal (two classes)": card.conformal is None or len(card.conformal.thresholds) == 2,
        "tile_threshold.value (0 to 1)": 0 <= card.tile_threshold.value <= 1,
        "slide_threshold.value (0 to 1)": 0 <= card.slide_threshold.value <= 1,
        "rule_out.value (0 to 1)": card.rule_out is None or 0 <= card.rule_out.value <= 1,
        "novelty (limits above 0, shares 0 to 1)": _holds_together(card.novelty),
        "weights.sha256 (64 hex digits)": re.fullmatch(r"[0-9a-f]{64}", card.weights.sha256),
    }
    for field, holds in rules.items():
        if not holds:
            raise ModelError(f"card.{field}: the value is impossible.", mend="Correct the card.")


def _holds_together(novelty: NoveltyCard | None) -> bool:
    if novelty is None:
        return True
    limits, shares = (novelty.limit, novelty.tile_limit), (novelty.quantile, novelty.kept)
    return min(limits) > 0 and all(0 <= share <= 1 for share in shares)
