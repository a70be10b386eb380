"""Bundles on disk: a directory with card.json and weights.safetensors, checked before use."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor, nn

from slidetriage.errors import ModelError, UsageError

from .backbones import build_backbone, outline_backbone
from .bundle import Bundle
from .card import Card, WeightsCard, read_card
from .encoder import TileEncoder
from .folders import combine, find_bundle
from .heads import build_head
from .precision import Device
from .slide_head import SlideHead
from .trust import NoveltyReference
from .weights import check_shapes, fill, read_weights

if TYPE_CHECKING:
    from .foreign.stain import StainNormaliser

WEIGHTS_VARIABLE = "SLIDETRIAGE_WEIGHTS"
"""Of the environment: a folder with NAME.safetensors for each backbone whose weights no bundle may
hold. On a cluster every worker needs it."""


def load_bundle(
    name_or_path: str | Path,
    *,
    device: str | Device = "cpu",
    encoder_weights: Path | None = None,
) -> Bundle:
    """Load a bundle by the name of a shipped one or by its directory.

    Card, SHA-256, safetensors header and every tensor's shape are checked before anything is
    built from the weights. Raises `ModelError` that says what is wrong and how to mend it.

    Where the encoder's weights are not in the bundle, they are those in `encoder_weights`, or in
    NAME.safetensors of the folder that the environment's SLIDETRIAGE_WEIGHTS names, or of the
    card's commit in the hub's cache; only those that the head was trained on are taken.

    >>> load_bundle("breast-idc-scout").card.tile_px
    50
    """
    directory = find_bundle(name_or_path)
    card, text = read_card(directory / "card.json")
    weights = read_weights(directory / card.weights.file, sha256=card.weights.sha256)
    parts = {name: _part(weights.tensors, f"{name}.") for name in ("encoder", "head", "novelty")}
    if sum(map(len, parts.values())) != len(weights.tensors):
        raise ModelError(
            f"{card.weights.file} holds tensors of neither encoder, head nor novelty.",
            mend="Save the bundle with slidetriage.models.save_bundle.",
        )
    if card.encoder_from is None:
        check_shapes(_shapes(outline_backbone(card.encoder)), parts["encoder"], where="encoder")
    with torch.device("meta"):
        check_shapes(_shapes(_build_head(card)), parts["head"], where="head")
    if card.encoder_from is None:
        encoder = _build_encoder(card, parts["encoder"], weights.sha256, device)
    else:
        encoder = _open_encoder(card, parts["encoder"], encoder_weights, device)
    head = _build_head(card)
    fill(head, parts["head"], where="head")
    head.eval().requires_grad_(False).to(encoder.device)
    return Bundle(
        card,
        encoder,
        head,
        combine(text, weights.sha256),
        _load_novelty(card, parts["novelty"]),
        _load_normaliser(card),
    )


def save_bundle(
    directory: Path,
    card: Card,
    *,
    backbone: nn.Module | None,
    head: SlideHead,
    novelty: NoveltyReference | None = None,
) -> Card:
    """Write card and weights to `directory`, and return the card with the weights' SHA-256.

    A float tensor is stored as float16 if that loses nothing, otherwise as float32. `backbone` is
    None where the card says that the encoder comes from elsewhere.
    """
    if (backbone is None) != (card.encoder_from is not None):
        raise UsageError("A bundle has an encoder of its own, or names where it comes from.")
    encoder = {} if backbone is None else backbone.state_dict()
    tensors = {f"encoder.{k}": _shrink(v) for k, v in encoder.items()}
    tensors |= {f"head.{k}": _shrink(v) for k, v in head.state_dict().items()}
    if novelty is not None:
        arrays = novelty.to_arrays().items()
        tensors |= {f"novelty.{k}": torch.from_numpy(v.copy()) for k, v in arrays}
    data = safetensors.torch.save(tensors)
    card = dataclasses.replace(
        card, weights=WeightsCard("weights.safetensors", hashlib.sha256(data).hexdigest())
    )
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / card.weights.file, data)
    _write(directory / "card.json", card.to_json().encode())
    return card


def _build_encoder(
    card: Card, tensors: dict[str, Tensor], sha256: str, device: str | Device
) -> TileEncoder:
    """The encoder from the bundle's own tensors."""
    backbone = build_backbone(card.encoder)
    fill(backbone, tensors, where="encoder")
    return TileEncoder(backbone, card.encoder, weights_sha256=sha256, device=device)


def _open_encoder(
    card: Card, tensors: dict[str, Tensor], given: Path | None, device: str | Device
) -> TileEncoder:
    """The encoder from where the card says."""
    from .foreign.registry import open_backbone

    assert card.encoder_from is not None  # as the caller asked
    if tensors:
        raise ModelError("The bundle has encoder weights and names another source of them.")
    backbone = card.encoder_from.backbone
    weights = _find_weights(card.name, backbone, given)
    # Who made the bundle accepted the licence; the weights are the user's own copy.
    encoder = open_backbone(
        backbone if weights is None else backbone.partition("@")[0],
        weights=weights,
        accept_non_commercial=True,
        device=device,
    )
    if encoder.identifier != card.encoder_from.identifier:
        raise ModelError(
            f"{backbone if weights is None else weights} is not the encoder that {card.name} "
            "learned from.",
            mend="Bring the weights whose SHA-256 stands in encoder_from.identifier of the card.",
        )
    return encoder


def _find_weights(bundle: str, backbone: str, given: Path | None) -> Path | None:
    """The user's own copy of a backbone's weights; None for those of a commit in the cache."""
    if given is not None:
        return given
    name, _, commit = backbone.partition("@")
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if folder and (Path(folder) / f"{name}.safetensors").exists():
        return Path(folder) / f"{name}.safetensors"
    if commit:
        return None
    raise ModelError(
        f"{bundle} needs the weights of {name}, which are not in the bundle.",
        mend=f"Name the folder that holds {name}.safetensors in the environment variable "
        f"{WEIGHTS_VARIABLE}.",
    )


def _load_novelty(card: Card, tensors: dict[str, Tensor]) -> NoveltyReference | None:
    if (card.novelty is None) != (not tensors):
        raise ModelError(
            "Card and weights disagree on whether there is a novelty reference.",
            mend="Save the bundle with slidetriage.models.save_bundle.",
        )
    if not tensors:
        return None
    reference = NoveltyReference.from_arrays({k: v.float().numpy() for k, v in tensors.items()})
    if len(reference.mean) != card.encoder.feature_size:
        raise ModelError("The novelty reference is for features of another length.")
    return reference


def _load_normaliser(card: Card) -> StainNormaliser | None:
    if card.stain_normaliser is None:
        return None
    from .foreign.stain import normaliser_of

    return normaliser_of(card.stain_normaliser)


def _build_head(card: Card) -> SlideHead:
    try:
        head = build_head(card.head.kind, card.encoder.feature_size, 1, **card.head.arguments)
    except (UsageError, TypeError) as error:
        raise ModelError(f"card.head: {error}", mend="Correct the card.") from error
    return SlideHead(head, tile_classifier=card.head.tile_classifier)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _shrink(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.is_floating_point():
        half = tensor.half()
        return half if torch.equal(half.float(), tensor.float()) else tensor.float()
    return tensor


def _write(path: Path, data: bytes) -> None:
    staged = path.with_name(f".{path.name}.partial")
    staged.write_bytes(data)
    os.replace(staged, path)
