"""Pathology backbones by name: their terms, and encoders from local files or the hub's cache."""

from __future__ import annotations

from pathlib import Path

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.backbones import HubModel, load_encoder
from slidetriage.models.encoder import TileEncoder
from slidetriage.models.precision import Device

from .pathology_backbones import BACKBONES, Backbone

_WEIGHTS_FILE = "model.safetensors"


def list_backbones(*, commercial: bool = False) -> tuple[str, ...]:
    """Names of the backbones, sorted; with `commercial`, those that allow commercial use."""
    return tuple(sorted(k for k, v in BACKBONES.items() if v.commercial or not commercial))


def find_backbone(name: str) -> Backbone:
    """What is known of a backbone; raises `ModelError` for a name that is not in the table."""
    if name not in BACKBONES:
        raise ModelError(
            f"There is no backbone {name!r}.", mend=f"Choose one of: {', '.join(list_backbones())}."
        )
    return BACKBONES[name]


def open_backbone(
    name: str,
    *,
    weights: Path | None = None,
    cache: Path | None = None,
    offline: bool = True,
    accept_non_commercial: bool = False,
    device: str | Device = "cpu",
) -> TileEncoder:
    """Make the encoder of a backbone.

    Parameters
    ----------
    name
        A name of the table with `weights`, or `name@commit` to take them from the hub: the forty
        hex digits of a commit you have seen and chosen, for names of branches move.
    weights
        A local safetensors file.
    cache
        Folder of the hub's cache; None is its usual place.
    offline
        Whether only the cache is looked at.
    accept_non_commercial
        You have read the licence, and your use is one it allows.

    Raises
    ------
    ModelError
        The name is unknown, or the weights are absent, damaged, or of another architecture.
    UsageError
        The licence excludes commercial use and was not accepted, or no weights are named.
    """
    name, _, commit = name.partition("@")
    backbone = find_backbone(name)
    if not backbone.commercial and not accept_non_commercial:
        raise UsageError(
            f"{name} is licensed under {backbone.licence}, which excludes commercial use.",
            mend="Read the licence; if it allows what you do, give accept_non_commercial=True.",
        )
    if (weights is None) == (not commit):
        given = "both are" if commit else "neither is"
        raise UsageError(
            f"{name} needs a commit of the hub or a local file; {given} given.",
            mend=f"Write {name}@ and the forty hex digits of a commit of "
            f"huggingface.co/{backbone.repository}, or give weights=, a safetensors file. No "
            f"commit is built in, as none could be verified.{_say_gated(backbone)}",
        )
    if weights is None:
        model = HubModel.parse(f"hf-hub:{backbone.repository}@{commit}")
        weights = model.fetch(_WEIGHTS_FILE, cache=cache, offline=offline)
    elif weights.suffix != ".safetensors":
        raise ModelError(
            f"{weights.name} is no safetensors file.",
            mend="Convert it once with convert_pickled, which pins what it reads.",
        )
    return load_encoder(backbone.card, weights, device=device)


def _say_gated(backbone: Backbone) -> str:
    if not backbone.gated:
        return ""
    return " The hub gives it only to accounts that have agreed to its terms."
