"""`detector.json`: what must be known of other people's detector to use it, and its file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from slidetriage.errors import ModelError
from slidetriage.models.fields import read_fields

CARD_FILE = "detector.json"

_MAX_CARD_BYTES = 2**20
_VERSION = b"foreign-1"
"""Part of every identity; changes when other nuclei come from the same maps."""

Three = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How bytes become what the network takes; one of `percentiles` and `scale` is given."""

    percentiles: tuple[float, float] | None = None
    """Percentiles of the image that become 0 and 1. The image is a window, so nuclei then depend
    a little on where windows lie."""
    per_channel: bool = False
    """Whether percentiles are of each channel, or of all three together."""
    scale: tuple[Three, Three] | None = None
    """Grey values of red, green and blue that become 0 and 1, the same for every window."""


@dataclass(frozen=True, slots=True)
class StarDistSettings:
    """How a StarDist network is run and its maps become nuclei."""

    probability_threshold: float
    nms_threshold: float
    grid_px: Literal[1, 2, 4]
    """Pixels of the image per pixel of the maps."""
    normalisation: Normalisation
    overlap: Literal["smaller", "union"] = "smaller"
    """What the area that two candidates share is divided by: the smaller one, as StarDist's own
    library does and published thresholds mean it, or their union."""
    divisible_by: int = 16
    """Images are padded by reflection to multiples of this."""


@dataclass(frozen=True, slots=True)
class InstanSegSettings:
    """How an InstanSeg network is run."""

    output: Literal["labels"]
    """It must end in instance labels: what comes before cannot be decoded without the network's
    own pixel classifier."""
    channel: int
    """Which channel of the output holds nuclei; 0 in published models."""
    normalisation: Normalisation
    divisible_by: int = 32
    """Images are padded by reflection to multiples of this."""


@dataclass(frozen=True, slots=True)
class ToolboxSettings:
    """Which network of TIAToolbox the weights are for."""

    model: str
    """Name under which TIAToolbox publishes it, e.g. "hovernet_fast-pannuke"."""
    part: str | None = None
    """Key of the file's outermost dict that holds the weights; None is "model" for KongNet and
    the whole file for HoVer-Net, as they are published."""


@dataclass(frozen=True, slots=True)
class ForeignCard:
    """Everything that `detector.json` says; of the three settings that of `kind` is given."""

    schema_version: Literal[1]
    kind: Literal["stardist", "instanseg", "tiatoolbox"]
    name: str
    version: str
    licence: str
    file: str
    """Name of the weights' file, which lies beside `detector.json`."""
    sha256: str
    mpp: float
    """Micrometres per pixel of the images that it is made for."""
    margin_px: int
    """How far from a nucleus pixels may change its outline."""
    stardist: StarDistSettings | None = None
    instanseg: InstanSegSettings | None = None
    tiatoolbox: ToolboxSettings | None = None

    def __post_init__(self) -> None:
        _require(_list_rules(self), "detector")
        if self.stardist is not None:
            _require(_list_stardist_rules(self.stardist), "detector.stardist")
            _check_normalisation(self.stardist.normalisation, "detector.stardist.normalisation")
        if self.instanseg is not None:
            rules = {
                "channel (0 to 15)": 0 <= self.instanseg.channel <= 15,
                "divisible_by (1 to 256)": 1 <= self.instanseg.divisible_by <= 256,
            }
            _require(rules, "detector.instanseg")
            _check_normalisation(self.instanseg.normalisation, "detector.instanseg.normalisation")


def read_foreign_card(directory: Path) -> tuple[ForeignCard, str]:
    """Read `detector.json` and the identity of the detector: a hash of it and of its file's hash.

    The file itself is not touched. Raises `ModelError` that names the field that is wrong.
    """
    path = directory / CARD_FILE
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CARD_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}).", mend=f"Put a {CARD_FILE} there."
        ) from error
    if len(text) > _MAX_CARD_BYTES:
        raise ModelError(f"{path} is larger than 1 MiB.", mend="That is no card; check the path.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}).", mend="Correct it.") from error
    card = read_fields(ForeignCard, value, where="detector")
    whole = hashlib.sha256(_VERSION + hashlib.sha256(text).digest() + bytes.fromhex(card.sha256))
    return card, whole.hexdigest()


def identify_foreign(directory: Path) -> str:
    """The identity of the detector in a folder, its file hashed but not opened.

    Raises `ModelError` where the card is wrong, or the file is missing or another one.
    """
    card, identity = read_foreign_card(directory)
    path = directory / card.file
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}).",
            mend=f"Put the file that {CARD_FILE} names beside it.",
        ) from error
    if digest != card.sha256:
        raise ModelError(
            f"{card.file} is another file than was pinned: its SHA-256 is {digest[:12]}..., "
            f"not {card.sha256[:12]}....",
            mend="Fetch it again, or look into where the other file came from.",
        )
    return identity


def _list_rules(card: ForeignCard) -> dict[str, object]:
    plain = PurePosixPath(card.file).name == card.file and not card.file.startswith(".")
    given = {name for name in ("stardist", "instanseg", "tiatoolbox") if getattr(card, name)}
    suffixes = {"stardist": (".onnx",), "instanseg": (".onnx", ".pt"), "tiatoolbox": ("",)}
    return {
        "name (lower-case letters, digits, hyphens)": re.fullmatch(
            r"[a-z0-9][a-z0-9-]*", card.name
        ),
        "version (letters, digits, dots, hyphens)": re.fullmatch(r"[\w.-]+", card.version),
        "licence (say which)": card.licence.strip(),
        "file (a name without folders)": plain
        and "\\" not in card.file
        and "\x00" not in card.file,
        f"file (for {card.kind} it ends in {' or '.join(suffixes[card.kind])})": card.file.endswith(
            suffixes[card.kind]
        ),
        "sha256 (64 hex digits)": re.fullmatch(r"[0-9a-f]{64}", card.sha256),
        "mpp (above 0, at most 4)": 0 < card.mpp <= 4,
        "margin_px (0 to 1024)": 0 <= card.margin_px <= 1024,
        f"{card.kind} (the settings of this kind, and of no other)": given == {card.kind},
    }


def _list_stardist_rules(settings: StarDistSettings) -> dict[str, object]:
    return {
        "probability_threshold (0 to 1)": 0 < settings.probability_threshold < 1,
        "nms_threshold (0 to 1)": 0 <= settings.nms_threshold <= 1,
        "divisible_by (a multiple of grid_px, 1 to 256)": 1 <= settings.divisible_by <= 256
        and settings.divisible_by % settings.grid_px == 0,
    }


def _check_normalisation(how: Normalisation, where: str) -> None:
    percentiles, scale = how.percentiles or (0.0, 1.0), how.scale or ((0.0,) * 3, (1.0,) * 3)
    rules = {
        "percentiles or scale (one of them)": (how.percentiles is None) != (how.scale is None),
        "percentiles (0 to 100, rising)": 0 <= percentiles[0] < percentiles[1] <= 100,
        "per_channel (with percentiles only)": not (how.per_channel and how.scale),
        "scale (from low to high)": all(a < b for a, b in zip(*scale, strict=True)),
    }
    _require(rules, where)


def _require(rules: Mapping[str, object], where: str) -> None:
    """Raise `ModelError` where values are well-typed but impossible."""
    for field, holds in rules.items():
        if not holds:
            raise ModelError(f"{where}.{field}: the value is impossible.", mend="Correct the card.")
